// One running lane, read token by token, so that things can happen between.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "cli/eval/forced_run.h"

namespace expertmesh::cli {

/// A greedy lane of `tokens` tokens that reports a hash of the logits' bits with each. Dropping it
/// early cancels the lane.
class LaneStream {
 public:
  /// `version` of the Engram tables; "" = the current one.
  LaneStream(const InferenceServer& server, std::span<const uint32_t> prompt, uint32_t tokens,
             const std::string& version);
  ~LaneStream();
  LaneStream(const LaneStream&) = delete;
  LaneStream& operator=(const LaneStream&) = delete;

  /// Reads up to `count` more tokens. False at the end of the answer.
  bool Read(size_t count);
  /// Reads the rest. OK if the whole lane came.
  absl::Status Finish();

  const std::vector<uint64_t>& hashes() const { return hashes_; }
  const std::string& version() const { return version_; }  // known after the first Read

 private:
  const std::string address_;
  const uint32_t wanted_;
  grpc::ClientContext context_;
  std::unique_ptr<grpc::ClientReader<inference::v1::GenerateResponse>> reader_;
  bool finished_ = false;
  std::vector<uint64_t> hashes_;
  std::string version_;
};

}  // namespace expertmesh::cli

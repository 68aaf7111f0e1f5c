// Runs lanes through an AttentionModel step by step and keeps every bit of the answers, so that
// tests can compare two ways of computing the same tokens.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "model/expert_slice.h"
#include "model/runtime.h"

namespace expertmesh::test_support {

/// What a lane's tokens gave: logits bits and cache hash per token.
struct LaneTrace {
  std::vector<uint32_t> logits;     // [tokens, vocab], the floats' bits
  std::vector<uint64_t> kv_hashes;  // [tokens]
  friend bool operator==(const LaneTrace&, const LaneTrace&) = default;
};

/// Loads or fails the process with the error's text.
std::unique_ptr<model::AttentionModel> LoadModel(const std::string& directory,
                                                 const std::string& profile,
                                                 const std::string& isa = "auto");
std::unique_ptr<model::ExpertSlice> LoadExperts(const std::string& directory,
                                                const std::string& profile,
                                                std::vector<base::ExpertRange> experts,
                                                const std::string& isa = "auto");

/// Lanes of one step plan: lane i advances by chunks[i] tokens a step until all of its tokens ran.
/// One step holds every unfinished lane, cut into `micro_batches`. Every token's logits are kept.
std::vector<LaneTrace> RunLanes(const model::AttentionModel& model, model::ExpertBackend& experts,
                                base::ThreadPool& pool,
                                std::span<const std::vector<uint32_t>> lanes,
                                std::span<const size_t> chunks, uint64_t first_position = 0,
                                size_t micro_batches = 1);

/// Several slices behind one backend, as a dispatcher sees them: rows fold into partials per owner,
/// the partial sums finish the tree. `owners[e]` is the index of the slice that computes expert e.
class SlicedExperts final : public model::ExpertBackend {
 public:
  SlicedExperts(std::vector<const model::ExpertSlice*> slices, std::vector<uint16_t> owners,
                base::ThreadPool& pool)
      : slices_(std::move(slices)), owners_(std::move(owners)), pool_(pool) {}

  void Begin(const model::MoeCall& call) override { calls_[call.micro_batch] = call; }
  void Finish(uint32_t micro_batch, std::span<float> out, std::span<uint8_t> alive) override;

  /// Adds partial sums one after another instead of finishing the tree: what the tree tests must
  /// notice.
  void UseRunningSum() { running_sum_ = true; }
  size_t partials_seen() const { return partials_seen_; }

 private:
  std::vector<const model::ExpertSlice*> slices_;
  std::vector<uint16_t> owners_;
  base::ThreadPool& pool_;
  std::map<uint32_t, model::MoeCall> calls_;  // by micro-batch
  bool running_sum_ = false;
  size_t partials_seen_ = 0;
};

}  // namespace expertmesh::test_support

// Given tokens through inference.v1, teacher-forced: the logits before each of them. Needs workers
// with --debug-api.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "cli/eval/eval_input.h"
#include "expertmesh/inference/v1/inference.grpc.pb.h"

namespace expertmesh::cli {

/// One server of inference.v1: an attention worker or a gateway. Any thread.
class InferenceServer {
 public:
  /// Asks what is served there. `address` is "host:port" or "unix:/path"; `model` "" = the only
  /// one.
  static absl::StatusOr<std::unique_ptr<InferenceServer>> Open(const std::string& address,
                                                               const std::string& model,
                                                               uint32_t timeout_s);

  const std::string& address() const { return address_; }
  const std::string& model() const { return served_.model().model(); }
  /// "demo revision 0123456789ab profile bf16".
  std::string Description() const;

  /// Takes the logits [vocab] before the token at an index.
  using TakeLogits = std::function<void(size_t index, std::span<const float> logits)>;
  /// Hands out the logits before every token from the first with a weight to the last one; index 0
  /// is never one.
  absl::Status Score(const ScoredText& text, const TakeLogits& take) const;

  inference::v1::InferenceService::Stub& stub() const { return *stub_; }
  uint32_t timeout_s() const { return timeout_s_; }

 private:
  InferenceServer() = default;

  std::string address_;
  uint32_t timeout_s_ = 0;
  std::unique_ptr<inference::v1::InferenceService::Stub> stub_;
  inference::v1::ServedModel served_;
};

/// Tokens to score as a request: those before the first with a weight are the prompt, the rest up
/// to the last one is forced. Without a weight behind the first token: kInvalidArgument.
struct ForcedRequest {
  inference::v1::GenerateRequest request;
  size_t first = 0;  // index of the first forced token
};
absl::StatusOr<ForcedRequest> RequestOf(const ScoredText& text);

}  // namespace expertmesh::cli

// What every request needs, HTTP or gRPC: tokenizer, limits, the mesh, counters.
#pragma once

#include <chrono>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "expertmesh/inference/v1/inference.pb.h"
#include "gateway/core/api_request.h"
#include "gateway/core/stop_matcher.h"
#include "gateway/mesh_view.h"
#include "model/config.h"
#include "model/tokenizer/chat_encoding.h"
#include "model/tokenizer/detokenizer.h"
#include "model/tokenizer/tokenizer.h"
#include "services/telemetry/metrics.h"

namespace expertmesh::gateway {

/// Immutable but for `mesh`; shared by all sessions.
struct Api {
  std::string model;  // served id
  model::Config config;
  std::unique_ptr<model::Tokenizer> tokenizer;
  model::ChatEncoding encoding = model::ChatEncoding::kNone;
  std::chrono::seconds request_timeout{600};
  size_t body_bytes_max = size_t{8} << 20;
  int64_t created = 0;  // Unix seconds, for /v1/models
  MeshView* mesh = nullptr;
  telemetry::Metrics* metrics = nullptr;
};

/// Tokenizes and checks against the context. Errors: kContextLengthExceeded, kChatEncodingUnknown,
/// kInvalidArgument.
absl::StatusOr<inference::v1::GenerateRequest> ToGenerateRequest(const Api& api,
                                                                 const ApiRequest& request);

/// Tokens of one answer → text, without special tokens and never past a stop string.
class AnswerText {
 public:
  AnswerText(const Api& api, std::vector<std::string> stops)
      : detokenizer_(*api.tokenizer, true), stops_(std::move(stops)) {}
  std::string Push(uint32_t token) { return stops_.Push(detokenizer_.Push(token)); }
  std::string End() {
    const std::string last = stops_.Push(detokenizer_.Flush());
    return last + stops_.Flush();
  }
  bool stopped() const { return stops_.stopped(); }

 private:
  model::Detokenizer detokenizer_;
  StopMatcher stops_;
};

}  // namespace expertmesh::gateway

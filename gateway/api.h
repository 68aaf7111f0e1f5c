// What every request needs, HTTP or gRPC: the model's tokenizer and limits, the mesh, the counters.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "expertmesh/inference/v1/inference.pb.h"
#include "gateway/core/answer.h"
#include "gateway/core/api_request.h"
#include "gateway/gateway_metrics.h"
#include "gateway/mesh_view.h"
#include "model/config.h"
#include "model/tokenizer/chat_encoding.h"
#include "model/tokenizer/tokenizer.h"

namespace expertmesh::gateway {

/// Immutable once served; shared by all sessions and outlives them. `mesh` and `metrics` are
/// thread-safe and not owned.
struct Api {
  std::string model = {};  // served id
  model::Config config = {};
  std::unique_ptr<model::Tokenizer> tokenizer = {};
  model::ChatEncoding encoding = model::ChatEncoding::kNone;
  model::ChatTexts chat_texts = {};
  SamplingDefaults sampling = {};  // of generation_config.json
  std::chrono::seconds request_timeout{600};
  int64_t created = 0;  // Unix seconds, for /v1/models
  MeshView* mesh = nullptr;
  GatewayMetrics* metrics = nullptr;
};

/// Tokenizes, checks against vocabulary and context, draws a seed if none was given. Any thread;
/// takes time in proportion to the prompt. Errors carry metadata "param": kModelNotFound,
/// kContextLengthExceeded, kChatEncodingUnknown, kUnsupported, kInvalidArgument.
absl::StatusOr<inference::v1::GenerateRequest> ToGenerateRequest(const Api& api,
                                                                 const ApiRequest& request);

/// How the tokens of a request's answer become text.
DecodeOptions ToDecodeOptions(const Api& api, const ApiRequest& request);

}  // namespace expertmesh::gateway

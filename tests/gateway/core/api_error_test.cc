#include "gateway/core/api_error.h"

#include <gtest/gtest.h>

#include "services/base/status.h"

namespace expertmesh::gateway {
namespace {

using base::Reason;

TEST(ApiError, StatusOfTheMeshByReason) {
  struct Case {
    Reason reason;
    int http_status;
    const char* code;
    const char* type;
    int retry_after_s;
  };
  const Case cases[] = {
      {Reason::kInvalidArgument, 400, "invalid_argument", "invalid_request_error", 0},
      {Reason::kContextLengthExceeded, 400, "context_length_exceeded", "invalid_request_error", 0},
      {Reason::kChatEncodingUnknown, 400, "chat_encoding_unknown", "invalid_request_error", 0},
      {Reason::kUnsupported, 400, "unsupported", "invalid_request_error", 0},
      {Reason::kModelNotFound, 404, "model_not_found", "invalid_request_error", 0},
      {Reason::kQueueFull, 429, "queue_full", "overloaded_error", 1},
      {Reason::kKvExhausted, 429, "kv_exhausted", "overloaded_error", 1},
      {Reason::kDeadlineExceeded, 504, "deadline_exceeded", "timeout_error", 0},
      {Reason::kNoAttentionWorker, 503, "no_attention_worker", "service_unavailable_error", 1},
      {Reason::kExpertsUnavailable, 503, "experts_unavailable", "service_unavailable_error", 1},
      {Reason::kPeerLost, 503, "peer_lost", "service_unavailable_error", 1},
      {Reason::kNotReady, 503, "not_ready", "service_unavailable_error", 1},
      {Reason::kDraining, 503, "draining", "service_unavailable_error", 1},
      {Reason::kCancelled, 503, "cancelled", "service_unavailable_error", 1},
      {Reason::kInternal, 500, "internal", "server_error", 0},
      {Reason::kNonFinite, 500, "non_finite", "server_error", 0},
  };
  for (const Case& c : cases) {
    const ApiError error = FromStatus(base::Error(c.reason, "why"));
    EXPECT_EQ(error.http_status, c.http_status) << c.code;
    EXPECT_EQ(error.code, c.code);
    EXPECT_EQ(error.type, c.type) << c.code;
    EXPECT_EQ(error.retry_after_s, c.retry_after_s) << c.code;
    EXPECT_EQ(error.message, "why");
    EXPECT_EQ(error.param, "");
  }
}

TEST(ApiError, TheFieldTravelsAsMetadata) {
  const ApiError error =
      FromStatus(base::Error(Reason::kInvalidArgument, "why", {{"param", "prompt"}}));
  EXPECT_EQ(error.param, "prompt");
}

}  // namespace
}  // namespace expertmesh::gateway

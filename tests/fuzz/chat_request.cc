// Bodies of every door that takes a prompt, and generation_config.json: a checked request or an
// error that a person can read.
#include <cmath>
#include <variant>

#include "gateway/core/api_request.h"
#include "gateway/core/sampling_defaults.h"
#include "tests/fuzz/fuzz.h"

namespace expertmesh::fuzz {
namespace {

void Check(const gateway::ParsedRequest& parsed) {
  if (const auto* error = std::get_if<gateway::ApiError>(&parsed)) {
    Require(error->http_status >= 400 && error->http_status < 500, "the client's fault");
    Require(!error->message.empty(), "says what is wrong");
    return;
  }
  const auto& request = std::get<gateway::ApiRequest>(parsed);
  Require(std::isfinite(request.temperature) && request.temperature >= 0, "temperature");
  Require(request.top_p > 0 && request.top_p <= 1, "top_p");
  Require(!request.chat || !request.messages.empty(), "messages");
}

}  // namespace
}  // namespace expertmesh::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace expertmesh;
  fuzz::Check(gateway::ParseChatRequest(fuzz::Text(data, size)));
  fuzz::Check(gateway::ParseCompletionRequest(fuzz::Text(data, size)));
  fuzz::Check(gateway::ParseResponsesRequest(fuzz::Text(data, size)));
  fuzz::Check(gateway::ParseMessagesRequest(fuzz::Text(data, size)));
  if (const auto defaults = gateway::ParseSamplingDefaults(fuzz::Text(data, size)); defaults.ok()) {
    const float temperature = defaults->temperature;
    fuzz::Require(std::isfinite(temperature) && temperature >= 0, "temperature");
    fuzz::Require(defaults->top_p > 0 && defaults->top_p <= 1, "top_p");
  }
  return 0;
}

#include "gateway/core/api_request.h"

#include <algorithm>
#include <array>
#include <boost/json.hpp>
#include <utility>

#include "absl/strings/str_cat.h"
#include "gateway/core/answer_shape.h"
#include "gateway/core/request_fields.h"

namespace expertmesh::gateway {
namespace {

namespace json = boost::json;

constexpr uint32_t kCompletionTokensDefault = 16;

Failure TakeContent(const json::value& v, const std::string& field, std::string& out) {
  if (v.is_string()) {
    out = Text(v.as_string());
    return std::nullopt;
  }
  if (!v.is_array()) return BadField(field, "must be a string or an array of text parts");
  for (size_t i = 0; i < v.as_array().size(); ++i) {
    const json::value& part = v.as_array()[i];
    const std::string at = absl::StrCat(field, "[", i, "]");
    if (TypeOf(part) != "text") return BadField(at, R"(must be a part of type "text")");
    const json::value* text = FindField(part.as_object(), "text");
    if (text == nullptr || !text->is_string()) return BadField(at + ".text", "must be a string");
    out += Text(text->as_string());
  }
  return std::nullopt;
}

Failure TakeCall(const json::value& v, const std::string& at, model::ChatMessage& message) {
  const json::value* function = nullptr;
  if (TypeOf(v) == "function") function = FindField(v.as_object(), "function");
  if (function == nullptr || !function->is_object()) {
    return BadField(at, R"(must be {"id", "type": "function", "function": {…}})");
  }
  model::ChatToolCall call;
  const json::value* id = FindField(v.as_object(), "id");
  if (id != nullptr && id->is_string()) call.id = Text(id->as_string());
  for (const auto& [name, to] : {std::pair{"name", &call.name}, {"arguments", &call.arguments}}) {
    const json::value* field = FindField(function->as_object(), name);
    if (field == nullptr || !field->is_string()) {
      return BadField(absl::StrCat(at, ".function.", name), "must be a string");
    }
    *to = Text(field->as_string());
  }
  message.tool_calls.push_back(std::move(call));
  return std::nullopt;
}

// Calls and reasoning of an assistant, the call that a tool answers.
Failure TakeToolParts(const json::object& object, const std::string& at,
                      model::ChatMessage& message) {
  if (const json::value* calls = FindField(object, "tool_calls")) {
    if (!calls->is_array()) return BadField(at + ".tool_calls", "must be an array");
    if (message.role != "assistant" && !calls->as_array().empty()) {
      return BadField(at + ".tool_calls", "belongs to an assistant's message");
    }
    for (size_t i = 0; i < calls->as_array().size(); ++i) {
      const std::string field = absl::StrCat(at, ".tool_calls[", i, "]");
      if (auto bad = TakeCall(calls->as_array()[i], field, message)) return bad;
    }
  }
  if (message.role == "tool") {
    const json::value* id = FindField(object, "tool_call_id");
    if (id == nullptr || !id->is_string())
      return BadField(at + ".tool_call_id", "must be a string");
    message.tool_call_id = Text(id->as_string());
  }
  for (const char* name : {"reasoning", "reasoning_content"}) {
    const json::value* reasoning = FindField(object, name);
    if (reasoning == nullptr || message.role != "assistant") continue;
    if (!reasoning->is_string()) return BadField(absl::StrCat(at, ".", name), "must be a string");
    message.reasoning = Text(reasoning->as_string());
  }
  return std::nullopt;
}

// Only the last message may be the beginning of the answer: a later one finds the flag set.
Failure TakePrefix(const json::object& object, const std::string& at, ApiRequest& request) {
  if (request.prefix) return BadField(at, "comes behind a message with prefix: true");
  const json::value* prefix = FindField(object, "prefix");
  if (prefix == nullptr) return std::nullopt;
  if (!prefix->is_bool()) return BadField(at + ".prefix", "must be true or false");
  const json::value* role = FindField(object, "role");
  if (prefix->as_bool() && role->as_string() != "assistant") {
    return BadField(at + ".prefix", "belongs to an assistant's message");
  }
  request.prefix = prefix->as_bool();
  return std::nullopt;
}

Failure TakeMessage(const json::value& v, const std::string& at, ApiRequest& request) {
  if (!v.is_object()) return BadField(at, "must be an object");
  const json::object& object = v.as_object();
  const json::value* role = FindField(object, "role");
  if (role == nullptr || !role->is_string()) return BadField(at + ".role", "must be a string");
  model::ChatMessage message;
  message.role = Text(role->as_string());
  constexpr std::array<std::string_view, 5> kRoles = {"system", "developer", "user", "assistant",
                                                      "tool"};
  if (std::find(kRoles.begin(), kRoles.end(), message.role) == kRoles.end()) {
    return BadField(at + ".role", "must be system, developer, user, assistant or tool");
  }
  if (auto bad = RefuseMessageExtras(object, at)) return bad;
  if (auto bad = TakeToolParts(object, at, message)) return bad;
  if (auto bad = TakePrefix(object, at, request)) return bad;
  const json::value* content = FindField(object, "content");
  if (content == nullptr) {
    if (message.role != "assistant") return BadField(at + ".content", "is missing");
  } else if (auto bad = TakeContent(*content, at + ".content", message.content)) {
    return bad;
  }
  request.messages.push_back(std::move(message));
  return std::nullopt;
}

Failure TakeMessages(const json::object& body, ApiRequest& request) {
  const json::value* messages = FindField(body, "messages");
  if (messages == nullptr || !messages->is_array() || messages->as_array().empty()) {
    return BadField("messages", "must be an array with at least one message");
  }
  const json::array& list = messages->as_array();
  if (list.size() > kMessagesMax) {
    return BadField("messages", absl::StrCat("may have at most ", kMessagesMax, " entries"));
  }
  for (size_t i = 0; i < list.size(); ++i) {
    if (auto bad = TakeMessage(list[i], absl::StrCat("messages[", i, "]"), request)) return bad;
  }
  return std::nullopt;
}

// A list of one prompt is that prompt; several prompts are several choices, which come later.
Failure TakePrompt(const json::object& body, ApiRequest& request) {
  const ApiError bad =
      BadField("prompt", "must be a string, an array of token ids, or an array with one of these");
  const json::value* prompt = FindField(body, "prompt");
  if (prompt == nullptr) return bad;
  if (prompt->is_array() && prompt->as_array().size() == 1 && !prompt->as_array()[0].is_number()) {
    prompt = &prompt->as_array()[0];
  }
  if (prompt->is_string()) {
    request.prompt = Text(prompt->as_string());
    return std::nullopt;
  }
  if (!prompt->is_array() || prompt->as_array().empty()) return bad;
  for (const json::value& id : prompt->as_array()) {
    if (!id.is_int64() || id.as_int64() < 0 || id.as_int64() > UINT32_MAX) return bad;
    request.prompt_tokens.push_back(static_cast<uint32_t>(id.as_int64()));
  }
  return std::nullopt;
}

}  // namespace

ParsedRequest ParseChatRequest(std::string_view body, const SamplingDefaults& defaults) {
  json::monotonic_resource memory;
  json::value parsed(&memory);
  if (auto bad = ParseBody(body, &memory, parsed)) return *std::move(bad);
  ApiRequest request(defaults);
  const json::object& fields = parsed.as_object();
  if (auto bad = TakeFields(fields, request)) return *std::move(bad);
  if (auto bad = TakeMessages(fields, request)) return *std::move(bad);
  if (auto bad = CheckAnswerShape(request)) return *std::move(bad);
  return request;
}

ParsedRequest ParseCompletionRequest(std::string_view body, const SamplingDefaults& defaults) {
  json::monotonic_resource memory;
  json::value parsed(&memory);
  if (auto bad = ParseBody(body, &memory, parsed)) return *std::move(bad);
  ApiRequest request(defaults);
  request.chat = false;
  request.max_tokens = kCompletionTokensDefault;
  const json::object& fields = parsed.as_object();
  if (auto bad = TakeFields(fields, request)) return *std::move(bad);
  if (auto bad = TakePrompt(fields, request)) return *std::move(bad);
  if (request.suffix && !request.prompt_tokens.empty()) {
    return BadField("suffix", "needs a prompt that is a string");
  }
  return request;
}

}  // namespace expertmesh::gateway

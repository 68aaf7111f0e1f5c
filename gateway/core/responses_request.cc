// Bodies of /v1/responses: the stateless part.
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

// Fields that change nothing here. The list is in gateway/README.md.
constexpr std::array<std::string_view, 9> kIgnored = {
    "metadata",          "service_tier",           "user",
    "safety_identifier", "prompt_cache_key",       "stream_options",
    "max_tool_calls",    "prompt_cache_retention", "truncation"};

// A string, or parts of type input_text, output_text or text.
Failure TakeContent(const json::value& v, const std::string& at, std::string& out) {
  if (v.is_string()) return TakeString(at, v, out);
  if (!v.is_array()) return BadField(at, "must be a string or an array of text parts");
  for (size_t i = 0; i < v.as_array().size(); ++i) {
    const json::value& part = v.as_array()[i];
    const std::string field = absl::StrCat(at, "[", i, "]");
    const std::string_view type = TypeOf(part);
    if (type != "input_text" && type != "output_text" && type != "text") {
      return BadField(field,
                      "must be of type input_text or output_text; this model reads text only");
    }
    std::string text;
    const json::value* value = FindField(part.as_object(), "text");
    if (value == nullptr) return BadField(field + ".text", "must be a string");
    if (auto bad = TakeString(field + ".text", *value, text)) return bad;
    out += text;
  }
  return std::nullopt;
}

Failure TakeStrings(const json::object& item, const std::string& at,
                    std::initializer_list<std::pair<const char*, std::string*>> keys) {
  for (const auto& [key, to] : keys) {
    const json::value* value = FindField(item, key);
    if (value == nullptr) return BadField(absl::StrCat(at, ".", key), "must be a string");
    if (auto bad = TakeString(absl::StrCat(at, ".", key), *value, *to)) return bad;
  }
  return std::nullopt;
}

// Calls and reasoning belong to the assistant's message that they stand before or behind.
model::ChatMessage& Assistant(ApiRequest& request) {
  if (request.messages.empty() || request.messages.back().role != "assistant") {
    request.messages.push_back({.role = "assistant", .content = ""});
  }
  return request.messages.back();
}

Failure TakeMessageItem(const json::object& item, const std::string& at, ApiRequest& request) {
  std::string role;
  std::string content;
  if (auto bad = TakeStrings(item, at, {{"role", &role}})) return bad;
  if (role != "system" && role != "developer" && role != "user" && role != "assistant") {
    return BadField(at + ".role", "must be system, developer, user or assistant");
  }
  const json::value* value = FindField(item, "content");
  if (value == nullptr) return BadField(at + ".content", "is missing");
  if (auto bad = TakeContent(*value, at + ".content", content)) return bad;
  if (role == "assistant") {
    Assistant(request).content += content;
  } else {
    request.messages.push_back({.role = role, .content = content});
  }
  return std::nullopt;
}

Failure TakeItem(const json::value& v, const std::string& at, ApiRequest& request) {
  if (!v.is_object()) return BadField(at, "must be an object");
  const json::object& item = v.as_object();
  const std::string_view type = TypeOf(v);
  if (type.empty() || type == "message") return TakeMessageItem(item, at, request);
  if (type == "function_call") {
    model::ChatToolCall call;
    if (auto bad = TakeStrings(
            item, at,
            {{"call_id", &call.id}, {"name", &call.name}, {"arguments", &call.arguments}})) {
      return bad;
    }
    Assistant(request).tool_calls.push_back(std::move(call));
    return std::nullopt;
  }
  if (type == "function_call_output") {
    model::ChatMessage result{.role = "tool", .content = ""};
    if (auto bad = TakeStrings(item, at, {{"call_id", &result.tool_call_id}})) return bad;
    const json::value* output = FindField(item, "output");
    if (output == nullptr) return BadField(at + ".output", "is missing");
    if (auto bad = TakeContent(*output, at + ".output", result.content)) return bad;
    request.messages.push_back(std::move(result));
    return std::nullopt;
  }
  if (type == "reasoning") return std::nullopt;  // of an earlier answer: the encodings drop it
  return BadField(at + ".type",
                  "must be message, function_call, function_call_output or reasoning");
}

Failure TakeInput(const json::object& body, ApiRequest& request) {
  if (const json::value* instructions = FindField(body, "instructions")) {
    model::ChatMessage message{.role = "system", .content = ""};
    if (auto bad = TakeString("instructions", *instructions, message.content)) return bad;
    request.messages.push_back(std::move(message));
  }
  const json::value* input = FindField(body, "input");
  if (input != nullptr && input->is_string()) {
    request.messages.push_back({.role = "user", .content = Text(input->as_string())});
    return std::nullopt;
  }
  if (input == nullptr || !input->is_array() || input->as_array().empty() ||
      input->as_array().size() > kMessagesMax) {
    return BadField("input",
                    absl::StrCat("must be a string or an array of 1 to ", kMessagesMax, " items"));
  }
  const size_t before = request.messages.size();
  for (size_t i = 0; i < input->as_array().size(); ++i) {
    const std::string at = absl::StrCat("input[", i, "]");
    if (auto bad = TakeItem(input->as_array()[i], at, request)) return bad;
  }
  if (request.messages.size() == before) return BadField("input", "holds no message");
  return std::nullopt;
}

Failure TakeTools(const json::value& v, ApiRequest& request) {
  if (!v.is_array() || v.as_array().size() > kToolsMax) {
    return BadField("tools", absl::StrCat("must be an array of at most ", kToolsMax, " tools"));
  }
  for (size_t i = 0; i < v.as_array().size(); ++i) {
    const json::value& tool = v.as_array()[i];
    const std::string at = absl::StrCat("tools[", i, "]");
    if (TypeOf(tool) != "function") return UnsupportedField(at + ".type", "function");
    if (auto bad = TakeFunction(at, tool.as_object(), "parameters", request)) return bad;
  }
  return std::nullopt;
}

Failure TakeReasoning(const json::value& v, ApiRequest& request) {
  if (!v.is_object()) return BadField("reasoning", "must be an object");
  const json::value* effort = FindField(v.as_object(), "effort");
  if (effort == nullptr) return std::nullopt;  // how to summarise: there are no summaries
  return TakeEffortName("reasoning.effort", *effort, request);
}

Failure TakeText(const json::value& v, ApiRequest& request) {
  if (!v.is_object()) return BadField("text", "must be an object");
  const json::value* format = FindField(v.as_object(), "format");
  if (format == nullptr) return std::nullopt;
  return TakeAnswerFormat("text.format", *format, request);
}

Failure MustBeFalse(std::string_view key, const json::value& v) {
  if (v.is_bool() && !v.as_bool()) return std::nullopt;
  return UnsupportedField(key, "false");
}

Failure MustBeEmpty(std::string_view key, const json::value& v) {
  if (v.is_array() && v.as_array().empty()) return std::nullopt;
  return UnsupportedField(key, "empty");
}

Failure TakeField(std::string_view key, const json::value& v, ApiRequest& request) {
  if (key == "max_output_tokens") return TakeCount(key, v, 1, kTokensMax, request.max_tokens);
  if (key == "temperature") return TakeFloat(key, v, 0, 2, request.temperature);
  if (key == "top_p") return TakeFloat(key, v, 1e-6, 1, request.top_p);
  if (key == "stream") return TakeBool(key, v, request.stream);
  if (key == "parallel_tool_calls") return TakeBool(key, v, request.parallel_calls);
  if (key == "tools") return TakeTools(v, request);
  if (key == "tool_choice") return TakeToolChoiceField(v, request);
  if (key == "reasoning") return TakeReasoning(v, request);
  if (key == "text") return TakeText(v, request);
  if (key == "store" || key == "background") return MustBeFalse(key, v);
  if (key == "include") return MustBeEmpty(key, v);
  if (key == "previous_response_id" || key == "conversation" || key == "prompt") {
    return UnsupportedField(key, "absent: nothing is stored here, send the whole conversation");
  }
  return UnknownField(key);
}

}  // namespace

ParsedRequest ParseResponsesRequest(std::string_view body, const SamplingDefaults& defaults) {
  json::monotonic_resource memory;
  json::value parsed(&memory);
  if (auto bad = ParseBody(body, &memory, parsed)) return *std::move(bad);
  ApiRequest request(defaults);
  const json::object& fields = parsed.as_object();
  for (const auto& [key, value] : fields) {
    const std::string_view field(key.data(), key.size());
    if (field == "model" || field == "input" || field == "instructions" || value.is_null())
      continue;
    if (std::find(kIgnored.begin(), kIgnored.end(), field) != kIgnored.end()) continue;
    if (auto bad = TakeField(field, value, request)) return *std::move(bad);
  }
  if (auto bad = TakeModel(fields, request)) return *std::move(bad);
  if (auto bad = TakeInput(fields, request)) return *std::move(bad);
  if (auto bad = CheckAnswerShape(request)) return *std::move(bad);
  return request;
}

}  // namespace expertmesh::gateway

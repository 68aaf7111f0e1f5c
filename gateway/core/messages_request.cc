// Bodies of /anthropic/v1/messages.
#include <algorithm>
#include <array>
#include <boost/json.hpp>
#include <utility>

#include "absl/strings/str_cat.h"
#include "gateway/core/answer_shape.h"
#include "gateway/core/request_fields.h"
#include "model/tokenizer/python_json.h"

namespace expertmesh::gateway {
namespace {

namespace json = boost::json;

// Fields that change nothing here. The list is in gateway/README.md.
constexpr std::array<std::string_view, 8> kIgnored = {
    "metadata",      "service_tier", "container",     "mcp_servers",
    "cache_control", "betas",        "inference_geo", "context_management"};

Failure TakeTextBlock(const json::value& block, const std::string& at, std::string& out) {
  std::string text;
  const json::value* value = FindField(block.as_object(), "text");
  if (value == nullptr) return BadField(at + ".text", "must be a string");
  if (auto bad = TakeString(at + ".text", *value, text)) return bad;
  out += text;
  return std::nullopt;
}

// A string, or blocks of type text.
Failure TakeTexts(const json::value& v, const std::string& at, std::string& out) {
  if (v.is_string()) return TakeString(at, v, out);
  if (!v.is_array()) return BadField(at, "must be a string or an array of text blocks");
  for (size_t i = 0; i < v.as_array().size(); ++i) {
    const std::string field = absl::StrCat(at, "[", i, "]");
    if (TypeOf(v.as_array()[i]) != "text") {
      return BadField(field, R"(must be a block of type "text")");
    }
    if (auto bad = TakeTextBlock(v.as_array()[i], field, out)) return bad;
  }
  return std::nullopt;
}

Failure TakeToolUse(const json::object& block, const std::string& at, model::ChatMessage& message) {
  model::ChatToolCall call;
  for (const auto& [key, to] : {std::pair{"id", &call.id}, {"name", &call.name}}) {
    const json::value* field = FindField(block, key);
    if (field == nullptr) return BadField(absl::StrCat(at, ".", key), "is missing");
    if (auto bad = TakeString(absl::StrCat(at, ".", key), *field, *to)) return bad;
  }
  const json::value* input = FindField(block, "input");
  if (input == nullptr || !input->is_object()) return BadField(at + ".input", "must be an object");
  call.arguments = model::PythonJson(*input);
  message.tool_calls.push_back(std::move(call));
  return std::nullopt;
}

Failure TakeToolResult(const json::object& block, const std::string& at, ApiRequest& request) {
  model::ChatMessage result{.role = "tool", .content = ""};
  const json::value* id = FindField(block, "tool_use_id");
  if (id == nullptr) return BadField(at + ".tool_use_id", "is missing");
  if (auto bad = TakeString(at + ".tool_use_id", *id, result.tool_call_id)) return bad;
  if (const json::value* content = FindField(block, "content")) {
    if (auto bad = TakeTexts(*content, at + ".content", result.content)) return bad;
  }
  request.messages.push_back(std::move(result));
  return std::nullopt;
}

// Results of tools become messages of their own, before the text beside them.
Failure TakeBlock(const json::value& block, const std::string& at, model::ChatMessage& message,
                  ApiRequest& request) {
  const std::string_view type = TypeOf(block);
  const bool assistant = message.role == "assistant";
  if (type == "text") return TakeTextBlock(block, at, message.content);
  if (type == "tool_use" && assistant) return TakeToolUse(block.as_object(), at, message);
  if (type == "tool_result" && !assistant) return TakeToolResult(block.as_object(), at, request);
  if (type == "thinking" && assistant) {
    const json::value* thought = FindField(block.as_object(), "thinking");
    if (thought == nullptr) return BadField(at + ".thinking", "is missing");
    return TakeString(at + ".thinking", *thought, message.reasoning);
  }
  if (type == "redacted_thinking" && assistant) return std::nullopt;
  return BadField(at + ".type",
                  assistant
                      ? "must be text, thinking, redacted_thinking or tool_use"
                      : "must be text or tool_result; this model reads no images or documents");
}

Failure TakeMessage(const json::value& v, const std::string& at, ApiRequest& request) {
  if (!v.is_object()) return BadField(at, "must be an object");
  model::ChatMessage message;
  const json::value* role = FindField(v.as_object(), "role");
  if (role != nullptr && role->is_string()) message.role = Text(role->as_string());
  if (message.role != "user" && message.role != "assistant") {
    return BadField(at + ".role", "must be user or assistant");
  }
  const json::value* content = FindField(v.as_object(), "content");
  if (content == nullptr) return BadField(at + ".content", "is missing");
  if (content->is_string()) {
    message.content = Text(content->as_string());
  } else if (!content->is_array()) {
    return BadField(at + ".content", "must be a string or an array of blocks");
  } else {
    const json::array& blocks = content->as_array();
    for (size_t i = 0; i < blocks.size(); ++i) {
      const std::string field = absl::StrCat(at, ".content[", i, "]");
      if (auto bad = TakeBlock(blocks[i], field, message, request)) return bad;
    }
  }
  const bool only_results = content->is_array() && message.content.empty() &&
                            message.role == "user" && !content->as_array().empty();
  if (!only_results) request.messages.push_back(std::move(message));
  return std::nullopt;
}

Failure TakeMessages(const json::object& body, ApiRequest& request) {
  if (const json::value* system = FindField(body, "system")) {
    model::ChatMessage message{.role = "system", .content = ""};
    if (auto bad = TakeTexts(*system, "system", message.content)) return bad;
    request.messages.push_back(std::move(message));
  }
  const json::value* messages = FindField(body, "messages");
  if (messages == nullptr || !messages->is_array() || messages->as_array().empty() ||
      messages->as_array().size() > kMessagesMax) {
    return BadField("messages",
                    absl::StrCat("must be an array of 1 to ", kMessagesMax, " messages"));
  }
  for (size_t i = 0; i < messages->as_array().size(); ++i) {
    const std::string at = absl::StrCat("messages[", i, "]");
    if (auto bad = TakeMessage(messages->as_array()[i], at, request)) return bad;
  }
  // A last message of the assistant is the beginning of the answer.
  request.prefix = request.messages.back().role == "assistant";
  return std::nullopt;
}

Failure TakeTools(const json::value& v, ApiRequest& request) {
  if (!v.is_array() || v.as_array().size() > kToolsMax) {
    return BadField("tools", absl::StrCat("must be an array of at most ", kToolsMax, " tools"));
  }
  for (size_t i = 0; i < v.as_array().size(); ++i) {
    const json::value& tool = v.as_array()[i];
    const std::string at = absl::StrCat("tools[", i, "]");
    if (!tool.is_object()) return BadField(at, "must be an object");
    const std::string_view type = TypeOf(tool);
    if (!type.empty() && type != "custom") return UnsupportedField(at + ".type", "custom");
    if (auto bad = TakeFunction(at, tool.as_object(), "input_schema", request)) return bad;
  }
  return std::nullopt;
}

Failure TakeStops(const json::value& v, ApiRequest& request) {
  if (!v.is_array() || v.as_array().size() > kStopsMax) {
    return BadField("stop_sequences",
                    absl::StrCat("must be an array of at most ", kStopsMax, " strings"));
  }
  for (size_t i = 0; i < v.as_array().size(); ++i) {
    const std::string field = absl::StrCat("stop_sequences[", i, "]");
    if (auto bad = TakeStopString(field, v.as_array()[i], request)) return bad;
  }
  return std::nullopt;
}

Failure TakeThinking(const json::value& v, ApiRequest& request) {
  const std::string_view type = TypeOf(v);
  if (type != "enabled" && type != "disabled" && type != "adaptive") {
    return BadField("thinking", "must be of type enabled, adaptive or disabled");
  }
  request.thinking = type != "disabled";
  return std::nullopt;
}

Failure TakeOutput(const json::value& v, ApiRequest& request) {
  if (!v.is_object()) return BadField("output_config", "must be an object");
  for (const auto& [key, value] : v.as_object()) {
    const std::string field = absl::StrCat("output_config.", std::string(key.data(), key.size()));
    if (key == "format") {
      if (auto bad = TakeAnswerFormat(field, value, request)) return bad;
      continue;
    }
    if (key != "effort") return UnsupportedField(field, "absent");
    if (auto bad = TakeEffortName(field, value, request)) return bad;
  }
  return std::nullopt;
}

Failure TakeField(std::string_view key, const json::value& v, ApiRequest& request) {
  if (key == "max_tokens") return TakeCount(key, v, 1, kTokensMax, request.max_tokens);
  if (key == "temperature") return TakeFloat(key, v, 0, 2, request.temperature);
  if (key == "top_p") return TakeFloat(key, v, 1e-6, 1, request.top_p);
  if (key == "top_k") return TakeCount(key, v, 0, 1 << 24, request.top_k);
  if (key == "stream") return TakeBool(key, v, request.stream);
  if (key == "stop_sequences") return TakeStops(v, request);
  if (key == "tools") return TakeTools(v, request);
  if (key == "tool_choice") return TakeToolChoiceObject(v, request);
  if (key == "thinking") return TakeThinking(v, request);
  if (key == "output_config") return TakeOutput(v, request);
  return UnknownField(key);
}

}  // namespace

ParsedRequest ParseMessagesRequest(std::string_view body, bool counting,
                                   const SamplingDefaults& defaults) {
  json::monotonic_resource memory;
  json::value parsed(&memory);
  if (auto bad = ParseBody(body, &memory, parsed)) return *std::move(bad);
  ApiRequest request(defaults);
  request.include_usage = true;
  const json::object& fields = parsed.as_object();
  for (const auto& [key, value] : fields) {
    const std::string_view field(key.data(), key.size());
    if (field == "model" || field == "messages" || field == "system" || value.is_null()) continue;
    if (std::find(kIgnored.begin(), kIgnored.end(), field) != kIgnored.end()) continue;
    if (auto bad = TakeField(field, value, request)) return *std::move(bad);
  }
  if (auto bad = TakeModel(fields, request)) return *std::move(bad);
  if (auto bad = TakeMessages(fields, request)) return *std::move(bad);
  if (auto bad = CheckAnswerShape(request)) return *std::move(bad);
  if (request.max_tokens == 0 && !counting) return BadField("max_tokens", "is missing");
  return request;
}

}  // namespace expertmesh::gateway

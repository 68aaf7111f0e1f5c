#include "gateway/core/api_request.h"

#include <algorithm>
#include <array>
#include <boost/json.hpp>
#include <cmath>
#include <functional>
#include <map>
#include <utility>

#include "absl/strings/str_cat.h"

namespace expertmesh::gateway {
namespace {

namespace json = boost::json;

constexpr size_t kMessagesMax = 10000;
constexpr size_t kStopsMax = 16;
constexpr size_t kStopBytesMax = 1024;
constexpr size_t kDepthMax = 32;

// Fields that change nothing here. The list is in gateway/README.md.
constexpr std::array kIgnored = {
    "user",    "metadata",   "store",     "service_tier",  "prompt_cache_key", "safety_identifier",
    "verbosity", "parallel_tool_calls", "prediction", "reasoning_effort", "prompt_cache_retention",
    "thinking_budget"};

using Failure = std::optional<ApiError>;

// A field is fine when absent or null; `check` says what is wrong with any other value.
struct Rule {
  const char* field;
  std::function<Failure(const json::value&, ApiRequest&)> check;
};

std::optional<double> Number(const json::value& v) {
  if (v.is_int64()) return static_cast<double>(v.as_int64());
  if (v.is_uint64()) return static_cast<double>(v.as_uint64());
  if (v.is_double() && std::isfinite(v.as_double())) return v.as_double();
  return std::nullopt;
}

Failure TakeReal(const char* field, const json::value& v, double low, double high, bool open_low,
                 float& out) {
  const auto number = Number(v);
  if (!number || *number < low || *number > high || (open_low && *number == low)) {
    return BadField(field, absl::StrCat("must be a number ", open_low ? "above " : "from ", low,
                                        " to ", high));
  }
  out = static_cast<float>(*number);
  return std::nullopt;
}

Failure TakeCount(const char* field, const json::value& v, int64_t low, int64_t high,
                  uint32_t& out) {
  if (!v.is_int64() || v.as_int64() < low || v.as_int64() > high) {
    return BadField(field, absl::StrCat("must be an integer from ", low, " to ", high));
  }
  out = static_cast<uint32_t>(v.as_int64());
  return std::nullopt;
}

Failure TakeBool(const char* field, const json::value& v, bool& out) {
  if (!v.is_bool()) return BadField(field, "must be true or false");
  out = v.as_bool();
  return std::nullopt;
}

Failure TakeSeed(const json::value& v, ApiRequest& request) {
  if (v.is_int64()) {
    request.seed = static_cast<uint64_t>(v.as_int64());
  } else if (v.is_uint64()) {
    request.seed = v.as_uint64();
  } else {
    return BadField("seed", "must be an integer");
  }
  return std::nullopt;
}

Failure TakeStop(const json::value& v, ApiRequest& request) {
  const auto add = [&](const json::value& item, const std::string& field) -> Failure {
    if (!item.is_string() || item.as_string().empty() || item.as_string().size() > kStopBytesMax) {
      return BadField(field, absl::StrCat("must be a string of 1 to ", kStopBytesMax, " bytes"));
    }
    request.stop.emplace_back(item.as_string().data(), item.as_string().size());
    return std::nullopt;
  };
  if (!v.is_array()) return add(v, "stop");
  if (v.as_array().size() > kStopsMax) {
    return BadField("stop", absl::StrCat("may have at most ", kStopsMax, " strings"));
  }
  for (size_t i = 0; i < v.as_array().size(); ++i) {
    if (auto bad = add(v.as_array()[i], absl::StrCat("stop[", i, "]"))) return bad;
  }
  return std::nullopt;
}

Failure TakeStreamOptions(const json::value& v, ApiRequest& request) {
  if (!v.is_object()) return BadField("stream_options", "must be an object");
  const json::value* usage = v.as_object().if_contains("include_usage");
  if (usage == nullptr || usage->is_null()) return std::nullopt;
  return TakeBool("stream_options.include_usage", *usage, request.include_usage);
}

// A field whose only supported value is the neutral one.
Rule OnlyNeutral(const char* field, std::function<bool(const json::value&)> neutral,
                 const char* what) {
  return {field, [=](const json::value& v, ApiRequest&) -> Failure {
            if (neutral(v)) return std::nullopt;
            ApiError error = BadField(field, absl::StrCat("is not supported by this version", what));
            error.code = "unsupported_parameter";
            return error;
          }};
}

bool IsZero(const json::value& v) { return Number(v) == 0.0; }
bool IsOne(const json::value& v) { return Number(v) == 1.0; }
bool IsFalse(const json::value& v) { return v.is_bool() && !v.as_bool(); }
bool IsEmpty(const json::value& v) {
  return (v.is_array() && v.as_array().empty()) || (v.is_object() && v.as_object().empty());
}
bool IsNone(const json::value& v) { return v.is_string() && v.as_string() == "none"; }
bool IsType(const json::value& v, const char* wanted) {
  if (!v.is_object()) return false;
  const json::value* type = v.as_object().if_contains("type");
  return type != nullptr && type->is_string() && type->as_string() == wanted;
}

const std::vector<Rule>& CommonRules() {
  static const std::vector<Rule> rules = {
      {"temperature", [](auto& v, auto& r) { return TakeReal("temperature", v, 0, 2, false, r.temperature); }},
      {"top_p", [](auto& v, auto& r) { return TakeReal("top_p", v, 0, 1, true, r.top_p); }},
      {"top_k", [](auto& v, auto& r) { return TakeCount("top_k", v, 0, 1 << 24, r.top_k); }},
      {"seed", [](auto& v, auto& r) { return TakeSeed(v, r); }},
      {"max_tokens", [](auto& v, auto& r) { return TakeCount("max_tokens", v, 1, 1 << 30, r.max_tokens); }},
      {"stop", [](auto& v, auto& r) { return TakeStop(v, r); }},
      {"stream", [](auto& v, auto& r) { return TakeBool("stream", v, r.stream); }},
      {"stream_options", [](auto& v, auto& r) { return TakeStreamOptions(v, r); }},
      OnlyNeutral("n", IsOne, "; only 1"),
      OnlyNeutral("presence_penalty", IsZero, "; only 0"),
      OnlyNeutral("frequency_penalty", IsZero, "; only 0"),
      OnlyNeutral("logit_bias", IsEmpty, ""),
  };
  return rules;
}

const std::vector<Rule>& ChatRules() {
  static const std::vector<Rule> rules = {
      {"max_completion_tokens",
       [](auto& v, auto& r) { return TakeCount("max_completion_tokens", v, 1, 1 << 30, r.max_tokens); }},
      OnlyNeutral("logprobs", IsFalse, ""),
      OnlyNeutral("top_logprobs", IsZero, ""),
      OnlyNeutral("tools", IsEmpty, ""),
      OnlyNeutral("tool_choice", IsNone, "; only \"none\""),
      OnlyNeutral("functions", IsEmpty, ""),
      OnlyNeutral("response_format", [](const json::value& v) { return IsType(v, "text"); },
                  "; only {\"type\": \"text\"}"),
      OnlyNeutral("thinking", [](const json::value& v) { return IsType(v, "disabled"); },
                  "; only {\"type\": \"disabled\"}"),
      OnlyNeutral("modalities",
                  [](const json::value& v) { return v == json::value(json::array{"text"}); },
                  "; only [\"text\"]"),
  };
  return rules;
}

const std::vector<Rule>& CompletionRules() {
  static const std::vector<Rule> rules = {
      OnlyNeutral("logprobs", [](const json::value&) { return false; }, ""),
      OnlyNeutral("echo", IsFalse, "; only false"),
      OnlyNeutral("best_of", IsOne, "; only 1"),
      OnlyNeutral("suffix", [](const json::value& v) { return v.is_string() && v.as_string().empty(); }, ""),
  };
  return rules;
}

std::string Text(const json::string& s) { return {s.data(), s.size()}; }

Failure TakeContent(const json::value& v, const std::string& field, std::string& out) {
  if (v.is_string()) {
    out = Text(v.as_string());
    return std::nullopt;
  }
  if (!v.is_array()) return BadField(field, "must be a string or an array of text parts");
  for (size_t i = 0; i < v.as_array().size(); ++i) {
    const json::value& part = v.as_array()[i];
    const std::string at = absl::StrCat(field, "[", i, "]");
    if (!IsType(part, "text")) return BadField(at, "must be a part of type \"text\"");
    const json::value* text = part.as_object().if_contains("text");
    if (text == nullptr || !text->is_string()) return BadField(at + ".text", "must be a string");
    out += Text(text->as_string());
  }
  return std::nullopt;
}

Failure TakeMessage(const json::value& v, const std::string& at, ApiRequest& request) {
  if (!v.is_object()) return BadField(at, "must be an object");
  const json::object& object = v.as_object();
  const json::value* role = object.if_contains("role");
  if (role == nullptr || !role->is_string()) return BadField(at + ".role", "must be a string");
  model::ChatMessage message;
  message.role = Text(role->as_string());
  constexpr std::array kRoles = {"system", "developer", "user", "assistant"};
  if (std::find(kRoles.begin(), kRoles.end(), message.role) == kRoles.end()) {
    return BadField(at + ".role", "must be system, developer, user or assistant");
  }
  for (const char* field : {"tool_calls", "function_call"}) {
    const json::value* value = object.if_contains(field);
    if (value != nullptr && !value->is_null()) {
      return BadField(absl::StrCat(at, ".", field), "is not supported by this version");
    }
  }
  const json::value* content = object.if_contains("content");
  if (content == nullptr || content->is_null()) {
    if (message.role != "assistant") return BadField(at + ".content", "is missing");
  } else if (auto bad = TakeContent(*content, at + ".content", message.content)) {
    return bad;
  }
  request.messages.push_back(std::move(message));
  return std::nullopt;
}

Failure TakeMessages(const json::object& body, ApiRequest& request) {
  const json::value* messages = body.if_contains("messages");
  if (messages == nullptr || !messages->is_array() || messages->as_array().empty()) {
    return BadField("messages", "must be an array with at least one message");
  }
  if (messages->as_array().size() > kMessagesMax) {
    return BadField("messages", absl::StrCat("may have at most ", kMessagesMax, " entries"));
  }
  for (size_t i = 0; i < messages->as_array().size(); ++i) {
    if (auto bad = TakeMessage(messages->as_array()[i], absl::StrCat("messages[", i, "]"), request)) {
      return bad;
    }
  }
  return std::nullopt;
}

Failure TakePrompt(const json::object& body, ApiRequest& request) {
  const ApiError bad =
      BadField("prompt", "must be a string, an array of one string, or an array of token ids");
  const json::value* prompt = body.if_contains("prompt");
  if (prompt == nullptr) return bad;
  if (prompt->is_string()) {
    request.prompt = Text(prompt->as_string());
    return std::nullopt;
  }
  if (!prompt->is_array() || prompt->as_array().empty()) return bad;
  const json::array& items = prompt->as_array();
  if (items.size() == 1 && items[0].is_string()) {
    request.prompt = Text(items[0].as_string());
    return std::nullopt;
  }
  for (const json::value& id : items) {
    if (!id.is_int64() || id.as_int64() < 0 || id.as_int64() > UINT32_MAX) return bad;
    request.prompt_tokens.push_back(static_cast<uint32_t>(id.as_int64()));
  }
  return std::nullopt;
}

Failure CheckFields(const json::object& body, std::initializer_list<const std::vector<Rule>*> lists,
                    std::initializer_list<const char*> own, ApiRequest& request) {
  for (const auto& [key, value] : body) {
    const std::string field(key.data(), key.size());
    const auto same = [&](const char* name) { return field == name; };
    if (std::any_of(own.begin(), own.end(), same)) continue;
    if (std::any_of(kIgnored.begin(), kIgnored.end(), same) || value.is_null()) continue;
    const Rule* rule = nullptr;
    for (const auto* list : lists) {
      for (const Rule& r : *list) rule = field == r.field ? &r : rule;
    }
    if (rule == nullptr) {
      ApiError error = BadField(field, "is not a field of this request");
      error.code = "unknown_parameter";
      return error;
    }
    if (auto bad = rule->check(value, request)) return bad;
  }
  const json::value* model = body.if_contains("model");
  if (model == nullptr || !model->is_string() || model->as_string().empty()) {
    return BadField("model", "must be the id of a served model; see /v1/models");
  }
  request.model = Text(model->as_string());
  return std::nullopt;
}

std::variant<json::object, ApiError> ParseObject(std::string_view body) {
  json::parse_options options;
  options.max_depth = kDepthMax;
  boost::system::error_code error;
  json::value value =
      json::parse(json::string_view(body.data(), body.size()), error, json::storage_ptr(), options);
  ApiError bad;
  bad.http_status = 400;
  bad.code = "invalid_json";
  if (error) {
    bad.message = absl::StrCat("the body is not valid JSON: ", error.message());
    return bad;
  }
  if (!value.is_object()) {
    bad.message = "the body must be a JSON object";
    return bad;
  }
  return std::move(value.as_object());
}

}  // namespace

ParsedRequest ParseChatRequest(std::string_view body) {
  auto object = ParseObject(body);
  if (auto* bad = std::get_if<ApiError>(&object)) return *std::move(bad);
  ApiRequest request;
  const json::object& fields = std::get<json::object>(object);
  if (auto bad = CheckFields(fields, {&CommonRules(), &ChatRules()}, {"model", "messages"}, request)) {
    return *std::move(bad);
  }
  if (auto bad = TakeMessages(fields, request)) return *std::move(bad);
  return request;
}

ParsedRequest ParseCompletionRequest(std::string_view body) {
  auto object = ParseObject(body);
  if (auto* bad = std::get_if<ApiError>(&object)) return *std::move(bad);
  ApiRequest request;
  request.chat = false;
  request.max_tokens = 16;  // the API's default for this endpoint
  const json::object& fields = std::get<json::object>(object);
  if (auto bad = CheckFields(fields, {&CommonRules(), &CompletionRules()}, {"model", "prompt"}, request)) {
    return *std::move(bad);
  }
  if (auto bad = TakePrompt(fields, request)) return *std::move(bad);
  return request;
}

}  // namespace expertmesh::gateway

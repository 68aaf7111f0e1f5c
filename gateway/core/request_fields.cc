#include "gateway/core/request_fields.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <span>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "gateway/core/answer_shape.h"
#include "gateway/core/http_target.h"
#include "model/tokenizer/python_json.h"

namespace expertmesh::gateway {
namespace {

namespace json = boost::json;

constexpr size_t kStopBytesMax = 1024;
constexpr int64_t kChoicesMax = 8;
constexpr int64_t kTopLogprobsMax = 20;
constexpr size_t kBiasesMax = 1024;
constexpr size_t kNameBytesMax = 64;

// Fields that change nothing here, whatever they say. The list is in gateway/README.md.
constexpr std::array<std::string_view, 10> kIgnored = {"user",
                                                       "metadata",
                                                       "store",
                                                       "verbosity",
                                                       "service_tier",
                                                       "prompt_cache_key",
                                                       "prediction",
                                                       "thinking_budget",
                                                       "prompt_cache_retention",
                                                       "safety_identifier"};

std::optional<double> Number(const json::value& v) {
  if (v.is_int64()) return static_cast<double>(v.as_int64());
  if (v.is_uint64()) return static_cast<double>(v.as_uint64());
  if (v.is_double() && std::isfinite(v.as_double())) return v.as_double();
  return std::nullopt;
}

struct Rule;
using Check = Failure (*)(const Rule& rule, const json::value& value, ApiRequest& request);

// A field that is absent or null is fine; `check` says what is wrong with any other value.
struct Rule {
  std::string_view field;
  Check check;
  std::string_view only = {};  // the one value a field may have, for the message
};

Failure Unsupported(const Rule& rule) { return UnsupportedField(rule.field, rule.only); }

Failure TakeEffort(const Rule& rule, const json::value& v, ApiRequest& request) {
  return TakeEffortName(rule.field, v, request);
}

Failure TakeTool(const std::string& at, const json::value& v, ApiRequest& request) {
  if (TypeOf(v) != "function") return BadField(at + ".type", R"(must be "function")");
  const json::value* function = FindField(v.as_object(), "function");
  if (function == nullptr || !function->is_object()) {
    return BadField(at + ".function", "must be an object");
  }
  return TakeFunction(at + ".function", function->as_object(), "parameters", request);
}

Failure TakeTemperature(const Rule& rule, const json::value& v, ApiRequest& request) {
  const auto number = Number(v);
  if (!number || *number < 0 || *number > 2) {
    return BadField(rule.field, "must be a number from 0 to 2");
  }
  request.temperature = static_cast<float>(*number);
  return std::nullopt;
}

Failure TakeTopP(const Rule& rule, const json::value& v, ApiRequest& request) {
  const auto number = Number(v);
  const float top_p = number ? static_cast<float>(*number) : 0.0f;
  if (!number || !(top_p > 0) || *number > 1) {
    return BadField(rule.field, "must be a number above 0 and at most 1");
  }
  request.top_p = top_p;
  return std::nullopt;
}

Failure TakeMinP(const Rule& rule, const json::value& v, ApiRequest& request) {
  return TakeFloat(rule.field, v, 0, 1, request.min_p);
}
Failure TakePresence(const Rule& rule, const json::value& v, ApiRequest& request) {
  return TakeFloat(rule.field, v, -2, 2, request.presence_penalty);
}
Failure TakeFrequency(const Rule& rule, const json::value& v, ApiRequest& request) {
  return TakeFloat(rule.field, v, -2, 2, request.frequency_penalty);
}
Failure TakeRepetition(const Rule& rule, const json::value& v, ApiRequest& request) {
  return TakeFloat(rule.field, v, 0.01, 100, request.repetition_penalty);
}

Failure TakeLogitBias(const Rule& rule, const json::value& v, ApiRequest& request) {
  if (!v.is_object() || v.as_object().size() > kBiasesMax) {
    return BadField(rule.field,
                    absl::StrCat("must be an object of at most ", kBiasesMax, " token ids"));
  }
  for (const auto& [key, value] : v.as_object()) {
    const std::string_view text(key.data(), key.size());
    const std::string field = absl::StrCat("logit_bias.", Printable(text, kNameBytesMax));
    uint32_t id = 0;
    if (!absl::SimpleAtoi(std::string(text), &id)) return BadField(field, "is not a token id");
    float bias = 0;
    if (auto bad = TakeFloat(field, value, -100, 100, bias)) return bad;
    request.logit_bias.emplace_back(id, bias);
  }
  return std::nullopt;
}

Failure TakeTopK(const Rule& rule, const json::value& v, ApiRequest& request) {
  return TakeCount(rule.field, v, 0, 1 << 24, request.top_k);
}

Failure TakeMaxTokens(const Rule& rule, const json::value& v, ApiRequest& request) {
  return TakeCount(rule.field, v, 1, kTokensMax, request.max_tokens);
}

Failure TakeSeed(const Rule& rule, const json::value& v, ApiRequest& request) {
  if (!v.is_int64() && !v.is_uint64()) return BadField(rule.field, "must be an integer");
  request.seed = v.is_int64() ? static_cast<uint64_t>(v.as_int64()) : v.as_uint64();
  return std::nullopt;
}

Failure TakeStream(const Rule& rule, const json::value& v, ApiRequest& request) {
  return TakeBool(rule.field, v, request.stream);
}

Failure TakeStreamOptions(const Rule& rule, const json::value& v, ApiRequest& request) {
  if (!v.is_object()) return BadField(rule.field, "must be an object");
  const json::value* usage = FindField(v.as_object(), "include_usage");
  if (usage == nullptr) return std::nullopt;
  return TakeBool("stream_options.include_usage", *usage, request.include_usage);
}

Failure TakeStop(const Rule& rule, const json::value& v, ApiRequest& request) {
  if (!v.is_array()) return TakeStopString(std::string(rule.field), v, request);
  if (v.as_array().size() > kStopsMax) {
    return BadField(rule.field, absl::StrCat("may have at most ", kStopsMax, " strings"));
  }
  for (size_t i = 0; i < v.as_array().size(); ++i) {
    const std::string field = absl::StrCat("stop[", i, "]");
    if (auto bad = TakeStopString(field, v.as_array()[i], request)) return bad;
  }
  return std::nullopt;
}

Failure TakeThinking(const Rule& rule, const json::value& v, ApiRequest& request) {
  const std::string_view type = TypeOf(v);
  if (type != "enabled" && type != "disabled") {
    return BadField(rule.field, R"(must be {"type": "enabled"} or {"type": "disabled"})");
  }
  request.thinking = type == "enabled";
  return std::nullopt;
}

Failure TakeChoices(const Rule& rule, const json::value& v, ApiRequest& request) {
  return TakeCount(rule.field, v, 1, kChoicesMax, request.choices);
}
Failure TakeLogprobs(const Rule& rule, const json::value& v, ApiRequest& request) {
  return TakeBool(rule.field, v, request.logprobs);
}
Failure TakeTopLogprobs(const Rule& rule, const json::value& v, ApiRequest& request) {
  return TakeCount(rule.field, v, 0, kTopLogprobsMax, request.top_logprobs);
}
// Completions say both with one number.
Failure TakeTextLogprobs(const Rule& rule, const json::value& v, ApiRequest& request) {
  request.logprobs = true;
  return TakeTopLogprobs(rule, v, request);
}
Failure TakeParallel(const Rule& rule, const json::value& v, ApiRequest& request) {
  return TakeBool(rule.field, v, request.parallel_calls);
}
Failure TakeSuffix(const Rule& rule, const json::value& v, ApiRequest& request) {
  if (!v.is_string()) return BadField(rule.field, "must be a string");
  if (!v.as_string().empty()) request.suffix = Text(v.as_string());
  return std::nullopt;
}

Failure TakeTools(const Rule& rule, const json::value& v, ApiRequest& request) {
  if (!v.is_array() || v.as_array().size() > kToolsMax) {
    return BadField(rule.field, absl::StrCat("must be an array of at most ", kToolsMax, " tools"));
  }
  for (size_t i = 0; i < v.as_array().size(); ++i) {
    if (auto bad = TakeTool(absl::StrCat("tools[", i, "]"), v.as_array()[i], request)) return bad;
  }
  return std::nullopt;
}

Failure TakeToolChoice(const Rule&, const json::value& v, ApiRequest& request) {
  return TakeToolChoiceField(v, request);
}
Failure TakeFormat(const Rule& rule, const json::value& v, ApiRequest& request) {
  return TakeAnswerFormat(rule.field, v, request);
}

Failure MustBeOne(const Rule& rule, const json::value& v, ApiRequest&) {
  return Number(v) == 1.0 ? std::nullopt : Unsupported(rule);
}
Failure MustBeFalse(const Rule& rule, const json::value& v, ApiRequest&) {
  return v.is_bool() && !v.as_bool() ? std::nullopt : Unsupported(rule);
}
Failure MustBeEmpty(const Rule& rule, const json::value& v, ApiRequest&) {
  const bool empty = (v.is_array() && v.as_array().empty()) ||
                     (v.is_object() && v.as_object().empty()) ||
                     (v.is_string() && v.as_string().empty());
  return empty ? std::nullopt : Unsupported(rule);
}
Failure MustBeNone(const Rule& rule, const json::value& v, ApiRequest&) {
  return v.is_string() && View(v.as_string()) == "none" ? std::nullopt : Unsupported(rule);
}
Failure MustBeTextList(const Rule& rule, const json::value& v, ApiRequest&) {
  return v == json::value(json::array{"text"}) ? std::nullopt : Unsupported(rule);
}
Failure MustBeNull(const Rule& rule, const json::value&, ApiRequest&) { return Unsupported(rule); }

constexpr Rule kCommonRules[] = {
    {"temperature", TakeTemperature},
    {"top_p", TakeTopP},
    {"top_k", TakeTopK},
    {"seed", TakeSeed},
    {"max_tokens", TakeMaxTokens},
    {"stop", TakeStop},
    {"stream", TakeStream},
    {"stream_options", TakeStreamOptions},
    {"n", TakeChoices},
    {"min_p", TakeMinP},
    {"presence_penalty", TakePresence},
    {"frequency_penalty", TakeFrequency},
    {"repetition_penalty", TakeRepetition},
    {"logit_bias", TakeLogitBias},
};

constexpr Rule kChatRules[] = {
    {"max_completion_tokens", TakeMaxTokens},
    {"thinking", TakeThinking},
    {"reasoning_effort", TakeEffort},
    {"logprobs", TakeLogprobs},
    {"top_logprobs", TakeTopLogprobs},
    {"tools", TakeTools},
    {"parallel_tool_calls", TakeParallel},
    {"functions", MustBeEmpty, "empty"},
    {"tool_choice", TakeToolChoice},
    {"function_call", MustBeNone, "\"none\""},
    {"response_format", TakeFormat},
    {"modalities", MustBeTextList, R"(["text"])"},
    {"audio", MustBeNull},
    {"web_search_options", MustBeNull},
};

constexpr Rule kCompletionRules[] = {
    {"logprobs", TakeTextLogprobs},
    {"echo", MustBeFalse, "false"},
    {"best_of", MustBeOne, "1"},
    {"suffix", TakeSuffix},
};

const Rule* FindRule(std::span<const Rule> rules, std::string_view field) {
  const auto it = std::find_if(rules.begin(), rules.end(),
                               [&](const Rule& rule) { return rule.field == field; });
  return it == rules.end() ? nullptr : &*it;
}

}  // namespace

const json::value* FindField(const json::object& object, std::string_view key) {
  const json::value* value = object.if_contains(json::string_view(key.data(), key.size()));
  return value == nullptr || value->is_null() ? nullptr : value;
}

std::string_view TypeOf(const json::value& value) {
  if (!value.is_object()) return "";
  const json::value* type = FindField(value.as_object(), "type");
  return type != nullptr && type->is_string() ? View(type->as_string()) : "";
}

ApiError UnknownField(std::string_view field) {
  ApiError error = BadField(field, "is not a field of this request");
  error.code = "unknown_parameter";
  return error;
}

ApiError UnsupportedField(std::string_view field, std::string_view only) {
  std::string what = "is not supported by this version";
  if (!only.empty()) absl::StrAppend(&what, "; it may only be ", std::string(only));
  ApiError error = BadField(field, what);
  error.code = "unsupported_parameter";
  return error;
}

Failure TakeFloat(std::string_view field, const json::value& v, double low, double high,
                  float& out) {
  const auto number = Number(v);
  if (!number || *number < low || *number > high) {
    return BadField(field, absl::StrCat("must be a number from ", low, " to ", high));
  }
  out = static_cast<float>(*number);
  return std::nullopt;
}

Failure TakeCount(std::string_view field, const json::value& v, int64_t low, int64_t high,
                  uint32_t& out) {
  if (!v.is_int64() || v.as_int64() < low || v.as_int64() > high) {
    return BadField(field, absl::StrCat("must be an integer from ", low, " to ", high));
  }
  out = static_cast<uint32_t>(v.as_int64());
  return std::nullopt;
}

Failure TakeBool(std::string_view field, const json::value& v, bool& out) {
  if (!v.is_bool()) return BadField(field, "must be true or false");
  out = v.as_bool();
  return std::nullopt;
}

Failure TakeString(std::string_view field, const json::value& v, std::string& out) {
  if (!v.is_string()) return BadField(field, "must be a string");
  out = Text(v.as_string());
  return std::nullopt;
}

Failure TakeModel(const json::object& body, ApiRequest& request) {
  const json::value* model = FindField(body, "model");
  if (model == nullptr || !model->is_string() || model->as_string().empty()) {
    return BadField("model", "must be the id of a served model; see /v1/models");
  }
  request.model = Text(model->as_string());
  return std::nullopt;
}

Failure TakeEffortName(std::string_view field, const json::value& v, ApiRequest& request) {
  constexpr std::array<std::string_view, 7> kEfforts = {"none", "minimal", "low", "medium",
                                                        "high", "xhigh",   "max"};
  const std::string effort = v.is_string() ? Text(v.as_string()) : std::string();
  if (std::find(kEfforts.begin(), kEfforts.end(), effort) == kEfforts.end()) {
    return BadField(field, "must be none, minimal, low, medium, high, xhigh or max");
  }
  request.reasoning_effort = effort;
  return std::nullopt;
}

Failure TakeStopString(const std::string& field, const json::value& v, ApiRequest& request) {
  if (!v.is_string() || v.as_string().empty() || v.as_string().size() > kStopBytesMax) {
    return BadField(field, absl::StrCat("must be a string of 1 to ", kStopBytesMax, " bytes"));
  }
  request.stop.push_back(Text(v.as_string()));
  return std::nullopt;
}

Failure TakeFunction(const std::string& at, const json::object& function, const char* parameters,
                     ApiRequest& request) {
  const json::value* name = FindField(function, "name");
  const std::string text = name != nullptr && name->is_string() ? Text(name->as_string()) : "";
  const auto allowed = [](unsigned char c) {
    return absl::ascii_isalnum(c) || c == '_' || c == '-' || c == '.';
  };
  if (text.empty() || text.size() > kNameBytesMax ||
      !std::all_of(text.begin(), text.end(), allowed)) {
    return BadField(at + ".name",
                    absl::StrCat("must be 1 to ", kNameBytesMax, " of A-Z a-z 0-9 _ - ."));
  }
  const json::value* schema = FindField(function, parameters);
  if (schema != nullptr && !schema->is_object()) {
    return BadField(absl::StrCat(at, ".", parameters), "must be a JSON schema");
  }
  ApiFunction taken{.name = text, .field = at};
  taken.parameters = schema != nullptr ? json::serialize(*schema) : R"({"type": "object"})";
  if (const json::value* strict = FindField(function, "strict")) {
    if (auto bad = TakeBool(at + ".strict", *strict, taken.strict)) return bad;
  }
  request.functions.push_back(std::move(taken));
  // Chat tools reach the prompt as they came: an encoding may show every key.
  if (FindField(function, "type") == nullptr && std::string_view(parameters) == "parameters") {
    request.tools.push_back(model::PythonJson(function));
    return std::nullopt;
  }
  json::object shown = {{"name", text}};
  if (const json::value* description = FindField(function, "description")) {
    shown["description"] = *description;
  }
  if (schema != nullptr) shown["parameters"] = *schema;
  request.tools.push_back(model::PythonJson(shown));
  return std::nullopt;
}

Failure TakeFields(const json::object& body, ApiRequest& request) {
  const std::string_view prompt_field = request.chat ? "messages" : "prompt";
  const std::span<const Rule> own_rules =
      request.chat ? std::span<const Rule>(kChatRules) : std::span<const Rule>(kCompletionRules);
  for (const auto& [key, value] : body) {
    const std::string_view field(key.data(), key.size());
    if (field == "model" || field == prompt_field || value.is_null()) continue;
    if (std::find(kIgnored.begin(), kIgnored.end(), field) != kIgnored.end()) continue;
    const Rule* rule = FindRule(kCommonRules, field);
    if (rule == nullptr) rule = FindRule(own_rules, field);
    if (rule == nullptr) return UnknownField(field);
    if (auto bad = rule->check(*rule, value, request)) return bad;
  }
  // The newer name of max_tokens counts, whichever comes first.
  const json::value* newer = FindField(body, "max_completion_tokens");
  if (newer != nullptr) request.max_tokens = static_cast<uint32_t>(newer->as_int64());
  if (FindField(body, "stream_options") != nullptr && !request.stream) {
    return BadField("stream_options", "needs stream: true");
  }
  if (request.top_logprobs > 0 && !request.logprobs) {
    return BadField("top_logprobs", "needs logprobs: true");
  }
  return TakeModel(body, request);
}

Failure RefuseMessageExtras(const json::object& message, const std::string& at) {
  for (const std::string_view name : {"function_call", "audio"}) {
    if (FindField(message, name) == nullptr) continue;
    const std::string field = absl::StrCat(at, ".", std::string(name));
    return UnsupportedField(field, "");
  }
  return std::nullopt;
}

}  // namespace expertmesh::gateway

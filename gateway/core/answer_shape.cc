#include "gateway/core/answer_shape.h"

#include <algorithm>
#include <string>

#include "absl/strings/str_cat.h"

namespace expertmesh::gateway {
namespace {

namespace json = boost::json;

constexpr const char* kAnyObject = R"({"type": "object"})";

Failure TakeSchema(const std::string& field, const json::object& holder, ApiRequest& request) {
  const json::value* schema = FindField(holder, "schema");
  if (schema == nullptr || !(schema->is_object() || schema->is_bool())) {
    return BadField(field + ".schema", "must be a JSON schema");
  }
  if (const json::value* strict = FindField(holder, "strict")) {
    bool ignored = false;  // the answer is held to the schema either way
    if (auto bad = TakeBool(field + ".strict", *strict, ignored)) return bad;
  }
  request.answer_schema = json::serialize(*schema);
  request.answer_field = field + ".schema";
  return std::nullopt;
}

Failure TakeName(const std::string& field, const json::value* name, ApiRequest& request) {
  if (name == nullptr || !name->is_string() || name->as_string().empty()) {
    return BadField(field, "must name a function");
  }
  request.tool_choice = ToolChoice::kNamed;
  request.tool_name = Text(name->as_string());
  return std::nullopt;
}

}  // namespace

Failure TakeAnswerFormat(std::string_view field, const json::value& v, ApiRequest& request) {
  const std::string name(field);
  const std::string_view type = TypeOf(v);
  if (type == "text") return std::nullopt;
  request.answer_format = json::serialize(v);
  if (type == "json_object") {
    request.answer_schema = kAnyObject;
    request.answer_field = name;
    return std::nullopt;
  }
  if (type != "json_schema") {
    return BadField(name + ".type", R"(must be "text", "json_object" or "json_schema")");
  }
  const json::value* inner = FindField(v.as_object(), "json_schema");
  if (inner == nullptr) return TakeSchema(name, v.as_object(), request);
  if (!inner->is_object()) return BadField(name + ".json_schema", "must be an object");
  return TakeSchema(name + ".json_schema", inner->as_object(), request);
}

Failure TakeToolChoiceField(const json::value& v, ApiRequest& request) {
  constexpr std::string_view kOnly =
      R"("none", "auto", "required" or {"type": "function", …} with a name)";
  if (v.is_string()) {
    const std::string_view choice = View(v.as_string());
    if (choice != "none" && choice != "auto" && choice != "required") {
      return BadField("tool_choice", absl::StrCat("must be ", std::string(kOnly)));
    }
    request.tool_choice = choice == "none"   ? ToolChoice::kNone
                          : choice == "auto" ? ToolChoice::kAuto
                                             : ToolChoice::kRequired;
    return std::nullopt;
  }
  if (TypeOf(v) != "function") return UnsupportedField("tool_choice", kOnly);
  const json::value* function = FindField(v.as_object(), "function");
  if (function == nullptr)
    return TakeName("tool_choice.name", FindField(v.as_object(), "name"), request);
  if (!function->is_object()) return BadField("tool_choice.function", "must be an object");
  return TakeName("tool_choice.function.name", FindField(function->as_object(), "name"), request);
}

Failure TakeToolChoiceObject(const json::value& v, ApiRequest& request) {
  const std::string_view type = TypeOf(v);
  if (type == "tool") {
    if (auto bad = TakeName("tool_choice.name", FindField(v.as_object(), "name"), request)) {
      return bad;
    }
  } else if (type == "any" || type == "auto" || type == "none") {
    request.tool_choice = type == "any"    ? ToolChoice::kRequired
                          : type == "auto" ? ToolChoice::kAuto
                                           : ToolChoice::kNone;
  } else {
    return BadField("tool_choice.type", R"(must be "auto", "any", "tool" or "none")");
  }
  const json::value* single = FindField(v.as_object(), "disable_parallel_tool_use");
  if (single == nullptr) return std::nullopt;
  bool disabled = false;
  if (auto bad = TakeBool("tool_choice.disable_parallel_tool_use", *single, disabled)) return bad;
  request.parallel_calls = !disabled;
  return std::nullopt;
}

Failure CheckAnswerShape(const ApiRequest& request) {
  const bool forced =
      request.tool_choice == ToolChoice::kRequired || request.tool_choice == ToolChoice::kNamed;
  if (forced && request.functions.empty()) return BadField("tool_choice", "needs tools");
  if (request.tool_choice == ToolChoice::kNamed &&
      std::none_of(request.functions.begin(), request.functions.end(),
                   [&](const ApiFunction& f) { return f.name == request.tool_name; })) {
    return BadField("tool_choice", "names a function that is not among the tools");
  }
  if (request.prefix && (forced || request.answer_schema)) {
    return BadField(forced ? "tool_choice" : request.answer_field,
                    "cannot be used when the last message is the beginning of the answer");
  }
  return std::nullopt;
}

}  // namespace expertmesh::gateway

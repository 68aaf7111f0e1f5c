#include "gateway/answer_constraint.h"

#include <boost/json.hpp>
#include <set>
#include <string>
#include <string_view>
#include <utility>

#include "absl/strings/str_cat.h"
#include "model/grammar/schema.h"
#include "model/tokenizer/exact_json.h"
#include "model/tokenizer/special_tokens.h"
#include "services/base/status.h"

namespace expertmesh::gateway {
namespace {

namespace json = boost::json;
namespace special = model::special;
using base::Error;
using base::Reason;
using inference::v1::Constraint;
using model::ChatEncoding;

constexpr uint32_t kCallsMax = 128;
constexpr const char* kAnyObject = R"({"type": "object"})";

// Puts parts one behind the other.
class SequenceBuilder {
 public:
  SequenceBuilder(const model::Tokenizer& tokenizer, Constraint& into)
      : tokenizer_(tokenizer), list_(*into.mutable_sequence()) {}

  void Literal(std::string_view text) { list_.add_parts()->set_literal(std::string(text)); }
  void Schema(const std::string& schema) { list_.add_parts()->set_json_schema(schema); }
  void FreeText() { list_.add_parts()->set_free_text(true); }
  Constraint& Part() { return *list_.add_parts(); }
  // The special token of that name; remembers the first that is missing.
  void Token(std::string_view name) {
    const auto id = tokenizer_.IdOf(name);
    if (id) {
      list_.add_parts()->set_token_id(*id);
    } else if (missing_.empty()) {
      missing_ = name;
    }
  }
  void Dsml(std::string_view before, std::string_view behind) {
    Literal(before);
    Token(special::kDsml);
    Literal(behind);
  }
  const std::string& missing() const { return missing_; }

 private:
  const model::Tokenizer& tokenizer_;
  inference::v1::ConstraintList& list_;
  std::string missing_;
};

bool IsDsml(ChatEncoding encoding) {
  return encoding == ChatEncoding::kV32 || encoding == ChatEncoding::kV4;
}

absl::Status CheckSchema(const std::string& schema, const std::string& param) {
  const auto grammar = model::CompileSchema(schema);
  if (grammar.ok()) return absl::OkStatus();
  return Error(base::ReasonOf(grammar.status()),
               absl::StrCat(param, ": ", std::string(grammar.status().message())),
               {{"param", param}});
}

// One argument of a DSML call: plain text for strings without further demands, JSON otherwise.
void AddArgument(const model::Tokenizer& tokenizer, const std::string& key,
                 const json::value& schema, const json::object& root, Constraint& into,
                 std::string& missing) {
  bool text = schema.is_object();
  if (text) {
    for (const auto& [name, value] : schema.as_object()) {
      if (name == "type") text = text && value == json::value("string");
      if (name != "type" && name != "description" && name != "title") text = false;
    }
    text = text && schema.as_object().contains("type");
  }
  SequenceBuilder out(tokenizer, into);
  out.Dsml("\n<",
           absl::StrCat("parameter name=\"", key, "\" string=\"", text ? "true" : "false", "\">"));
  if (text) {
    out.FreeText();
  } else {
    json::value whole = schema;
    for (const char* shared : {"$defs", "definitions"}) {
      const json::value* found = root.if_contains(shared);
      if (whole.is_object() && found != nullptr) whole.as_object()[shared] = *found;
    }
    out.Schema(json::serialize(whole));
  }
  out.Dsml("</", "parameter>");
  if (missing.empty()) missing = out.missing();
}

// The arguments of a DSML call, in the order of the schema.
void AddArguments(const model::Tokenizer& tokenizer, const std::string& parameters,
                  SequenceBuilder& out, std::string& missing) {
  boost::system::error_code error;
  json::value parsed;
  model::ParseExactJson(parameters, {}, {}, parsed, error);
  if (error || !parsed.is_object()) return;
  const json::object& root = parsed.as_object();
  std::set<std::string> required;
  if (const json::value* names = root.if_contains("required"); names && names->is_array()) {
    for (const json::value& name : names->as_array()) {
      if (name.is_string()) required.emplace(name.as_string());
    }
  }
  const json::value* properties = root.if_contains("properties");
  if (properties == nullptr || !properties->is_object()) return;
  for (const auto& [name, schema] : properties->as_object()) {
    const std::string key(name.data(), name.size());
    auto* repeat = out.Part().mutable_repeat();
    repeat->set_least(required.contains(key) ? 1 : 0);
    repeat->set_most(1);
    AddArgument(tokenizer, key, schema, root, *repeat->mutable_part(), missing);
  }
}

// One call, as the model's encoding writes it.
std::string AddCall(const Api& api, const ApiFunction& function, const std::string& schema,
                    Constraint& into) {
  SequenceBuilder out(*api.tokenizer, into);
  std::string missing;
  if (IsDsml(api.encoding)) {
    out.Dsml("\n<", absl::StrCat("invoke name=\"", function.name, "\">"));
    AddArguments(*api.tokenizer, schema, out, missing);
    out.Dsml("\n</", "invoke>");
  } else if (api.encoding == ChatEncoding::kV31) {
    out.Token(special::kToolCallBegin);
    out.Literal(function.name);
    out.Token(special::kToolSep);
    out.Schema(schema);
    out.Token(special::kToolCallEnd);
  } else {
    out.Token(special::kToolCallBegin);
    out.Literal("function");
    out.Token(special::kToolSep);
    out.Literal(function.name + "\n```json\n");
    out.Schema(schema);
    out.Literal("\n```");
    out.Token(special::kToolCallEnd);
  }
  return missing.empty() ? out.missing() : missing;
}

// A block of calls of these functions.
absl::Status AddCalls(const Api& api, const ApiRequest& request, SequenceBuilder& out) {
  const bool dsml = IsDsml(api.encoding);
  const std::string block = api.encoding == ChatEncoding::kV4 ? "tool_calls>" : "function_calls>";
  if (dsml) {
    out.Dsml("\n\n<", block);
  } else {
    out.Token(special::kToolCallsBegin);
  }
  auto* repeat = out.Part().mutable_repeat();
  repeat->set_least(1);
  repeat->set_most(request.parallel_calls ? kCallsMax : 1);
  std::string missing;
  for (const ApiFunction& function : request.functions) {
    if (request.tool_choice == ToolChoice::kNamed && function.name != request.tool_name) continue;
    std::string schema = function.parameters;
    const absl::Status fits = CheckSchema(schema, function.field + ".parameters");
    if (!fits.ok() && function.strict) return fits;
    if (!fits.ok()) schema = kAnyObject;  // not strict: JSON at least
    const std::string lost =
        AddCall(api, function, schema, *repeat->mutable_part()->mutable_choice()->add_parts());
    if (missing.empty()) missing = lost;
  }
  if (dsml) {
    out.Dsml("\n</", block);
  } else {
    out.Token(special::kToolCallsEnd);
  }
  if (missing.empty()) missing = out.missing();
  if (missing.empty()) return absl::OkStatus();
  return Error(Reason::kUnsupported,
               absl::StrCat("model ", api.model,
                            " cannot be held to tool calls: its tokenizer has no ", missing),
               {{"param", "tools"}});
}

bool AnyStrict(const ApiRequest& request) {
  for (const ApiFunction& function : request.functions) {
    if (function.strict) return true;
  }
  return false;
}

// What stands behind the reasoning; false: anything.
absl::StatusOr<bool> AddAnswer(const Api& api, const ApiRequest& request, Constraint& into) {
  const bool forced =
      request.tool_choice == ToolChoice::kRequired || request.tool_choice == ToolChoice::kNamed;
  const bool may_call = request.tool_choice == ToolChoice::kAuto && !request.functions.empty() &&
                        api.encoding != ChatEncoding::kNone;
  if (forced) {
    SequenceBuilder calls(*api.tokenizer, into);
    EM_RETURN_IF_ERROR(AddCalls(api, request, calls));
    return true;
  }
  if (!request.answer_schema && !(may_call && AnyStrict(request))) return false;
  if (request.answer_schema) {
    EM_RETURN_IF_ERROR(CheckSchema(*request.answer_schema, request.answer_field));
  }
  if (!may_call) {
    into.set_json_schema(*request.answer_schema);
    return true;
  }
  // An answer, or calls behind what the model says first.
  auto* choice = into.mutable_choice();
  Constraint* answer = choice->add_parts();
  if (request.answer_schema) {
    answer->set_json_schema(*request.answer_schema);
  } else {
    answer->set_free_text(true);
  }
  SequenceBuilder calls(*api.tokenizer, *choice->add_parts());
  if (!request.answer_schema) calls.FreeText();
  EM_RETURN_IF_ERROR(AddCalls(api, request, calls));
  return true;
}

}  // namespace

absl::StatusOr<std::optional<Constraint>> ConstraintOf(const Api& api, const ApiRequest& request,
                                                       std::optional<uint32_t> end_of_reasoning) {
  Constraint answer;
  EM_ASSIGN_OR_RETURN(const bool any, AddAnswer(api, request, answer));
  if (!any) return std::nullopt;
  if (!end_of_reasoning) return answer;
  Constraint whole;
  SequenceBuilder out(*api.tokenizer, whole);
  out.FreeText();
  out.Part().set_token_id(*end_of_reasoning);
  out.Part() = std::move(answer);
  return whole;
}

}  // namespace expertmesh::gateway

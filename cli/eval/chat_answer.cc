#include "cli/eval/chat_answer.h"

#include <boost/json/array.hpp>
#include <boost/json/object.hpp>
#include <initializer_list>

#include "absl/strings/str_cat.h"
#include "model/config_json.h"
#include "services/base/status.h"

namespace expertmesh::cli {
namespace {

namespace json = boost::json;
using base::Reason;

absl::Status NotUnderstood(std::string_view what, std::string_view body) {
  return base::Error(Reason::kInternal,
                     absl::StrCat(std::string(what), ": ", std::string(body.substr(0, 200))));
}

// The value at keys and indices, or nullptr.
const json::value* At(const json::value& from, std::initializer_list<const char*> keys) {
  const json::value* at = &from;
  for (const char* key : keys) {
    if (at->is_array()) {
      if (at->get_array().empty()) return nullptr;
      at = &at->get_array()[0];
    }
    if (!at->is_object()) return nullptr;
    at = at->get_object().if_contains(key);
    if (at == nullptr) return nullptr;
  }
  return at;
}

}  // namespace

absl::StatusOr<std::string> AnswerOfCompletion(std::string_view body) {
  const auto value = model::ParseJson(body, Reason::kInternal);
  if (!value.ok()) return NotUnderstood("the answer is not JSON", body);
  const json::value* choices = At(*value, {"choices"});
  if (choices == nullptr || !choices->is_array()) return NotUnderstood("no choices", body);
  const json::value* content = At(*choices, {"message", "content"});
  if (content == nullptr) return NotUnderstood("no content", body);
  if (content->is_null()) return std::string();
  if (!content->is_string()) return NotUnderstood("the content is no text", body);
  return std::string(content->get_string().data(), content->get_string().size());
}

absl::StatusOr<std::string> OnlyModelOf(std::string_view body) {
  const auto value = model::ParseJson(body, Reason::kInternal);
  if (!value.ok()) return NotUnderstood("the list of models is not JSON", body);
  const json::value* data = At(*value, {"data"});
  if (data == nullptr || !data->is_array()) return NotUnderstood("no list of models", body);
  if (data->get_array().size() > 1) {
    return base::Error(Reason::kInvalidArgument,
                       "several models are served; name one: --served-model-name");
  }
  const json::value* id = At(*data, {"id"});
  if (id == nullptr || !id->is_string()) return NotUnderstood("no model", body);
  return std::string(id->get_string().data(), id->get_string().size());
}

std::string ErrorTextOf(std::string_view body) {
  const auto value = model::ParseJson(body, Reason::kInternal);
  const json::value* message = value.ok() ? At(*value, {"error", "message"}) : nullptr;
  if (message == nullptr || !message->is_string()) return std::string(body.substr(0, 200));
  return {message->get_string().data(), message->get_string().size()};
}

}  // namespace expertmesh::cli

#include "model/tokenizer/chat_json.h"

#include <boost/json/object.hpp>

#include "absl/strings/str_cat.h"
#include "model/tokenizer/python_json.h"
#include "services/base/status.h"

namespace expertmesh::model {
namespace {

namespace json = boost::json;

// Reads the fields of one message; remembers the first thing that is wrong.
class MessageReader {
 public:
  MessageReader(const json::object& object, size_t index) : object_(object), index_(index) {}

  absl::StatusOr<ChatMessage> Read() {
    ChatMessage message;
    message.role = Text(object_, "role");
    message.content = Content();
    message.reasoning = Text(object_, "reasoning_content");
    message.tool_call_id = Text(object_, "tool_call_id");
    message.task = Text(object_, "task");
    if (const json::value* format = Find(object_, "response_format")) {
      message.response_format = PythonJson(*format);
    }
    for (const json::value& tool : List("tools")) Tool(tool, message);
    for (const json::value& call : List("tool_calls")) Call(call, message);
    if (!status_.ok()) return status_;
    return message;
  }

 private:
  void Bad(std::string_view field, std::string_view why) {
    if (!status_.ok()) return;
    status_ = base::Error(
        base::Reason::kInvalidArgument,
        absl::StrCat("messages[", index_, "].", std::string(field), ": ", std::string(why)));
  }

  static const json::value* Find(const json::object& object, const char* key) {
    const json::value* value = object.if_contains(key);
    return value == nullptr || value->is_null() ? nullptr : value;
  }

  std::string Text(const json::object& object, const char* key) {
    const json::value* value = Find(object, key);
    if (value == nullptr) return {};
    if (!value->is_string()) {
      Bad(key, "must be a string");
      return {};
    }
    return {value->get_string().data(), value->get_string().size()};
  }

  std::string Content() {
    const json::value* value = Find(object_, "content");
    if (value == nullptr || !value->is_array()) return Text(object_, "content");
    std::string text;
    for (const json::value& part : value->get_array()) {
      if (!part.is_object() || Text(part.get_object(), "type") != "text") {
        Bad("content", R"(must be a string or parts of type "text")");
        return {};
      }
      text += Text(part.get_object(), "text");
    }
    return text;
  }

  json::array List(const char* key) {
    const json::value* value = Find(object_, key);
    if (value == nullptr) return {};
    if (value->is_array()) return value->get_array();
    Bad(key, "must be an array");
    return {};
  }

  const json::object* Function(const json::value& value, const char* field) {
    const json::value* function =
        value.is_object() ? Find(value.get_object(), "function") : nullptr;
    if (function != nullptr && function->is_object()) return &function->get_object();
    Bad(field, R"(an entry must be an object with "function")");
    return nullptr;
  }

  void Tool(const json::value& value, ChatMessage& message) {
    const json::object* function = Function(value, "tools");
    if (function != nullptr) message.tools.push_back(PythonJson(*function));
  }

  void Call(const json::value& value, ChatMessage& message) {
    const json::object* function = Function(value, "tool_calls");
    if (function == nullptr) return;
    message.tool_calls.push_back({.id = Text(value.get_object(), "id"),
                                  .name = Text(*function, "name"),
                                  .arguments = Text(*function, "arguments")});
  }

  const json::object& object_;
  const size_t index_;
  absl::Status status_;
};

}  // namespace

absl::StatusOr<std::vector<ChatMessage>> ChatMessagesFromJson(const json::value& list) {
  if (!list.is_array()) {
    return base::Error(base::Reason::kInvalidArgument, "messages must be an array");
  }
  std::vector<ChatMessage> messages;
  for (const json::value& entry : list.get_array()) {
    if (!entry.is_object()) {
      return base::Error(base::Reason::kInvalidArgument,
                         absl::StrCat("messages[", messages.size(), "] must be an object"));
    }
    EM_ASSIGN_OR_RETURN(ChatMessage message,
                        MessageReader(entry.get_object(), messages.size()).Read());
    messages.push_back(std::move(message));
  }
  return messages;
}

}  // namespace expertmesh::model

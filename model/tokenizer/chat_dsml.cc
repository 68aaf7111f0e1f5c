// What the encoders share: sections of tools and formats, calls in DSML.
#include <boost/json/object.hpp>

#include "absl/strings/str_cat.h"
#include "model/tokenizer/chat_encoders.h"
#include "model/tokenizer/python_json.h"
#include "model/tokenizer/special_tokens.h"

namespace expertmesh::model {
namespace {

namespace json = boost::json;

// A text of the encoding with one mark in braces, which `value` replaces.
void AddFramed(std::string_view frame, std::string_view mark, std::string_view value,
               ChatPrompt& prompt) {
  const size_t at = frame.find(mark);
  prompt.Own(frame.substr(0, at));
  if (at == std::string_view::npos) return;
  prompt.Text(value);
  prompt.Own(frame.substr(at + mark.size()));
}

// JSON in the published form; text that is no JSON as it is.
std::string Normal(const std::string& text) {
  const std::optional<json::value> value = ParseJson(text);
  return value.has_value() ? PythonJson(*value) : text;
}

void AddParameter(std::string_view key, const json::value& value, ChatPrompt& prompt) {
  const bool is_string = value.is_string();
  prompt.Text("<");
  prompt.Token(special::kDsml);
  prompt.Text(absl::StrCat("parameter name=\"", std::string(key), "\" string=\"",
                           is_string ? "true" : "false", "\">"));
  if (is_string) {
    prompt.Text({value.get_string().data(), value.get_string().size()});
  } else {
    prompt.Text(PythonJson(value));
  }
  prompt.Text("</");
  prompt.Token(special::kDsml);
  prompt.Text("parameter>");
}

void AddInvoke(const ChatToolCall& call, ChatPrompt& prompt) {
  prompt.Text("<");
  prompt.Token(special::kDsml);
  prompt.Text(absl::StrCat("invoke name=\"", call.name, "\">\n"));
  std::optional<json::value> arguments = ParseJson(call.arguments);
  if (!arguments.has_value() || !arguments->is_object()) {
    // What is no JSON object travels whole, as the one argument of that name.
    arguments = json::object{{"arguments", json::value(json::string(call.arguments))}};
  }
  bool first = true;
  for (const json::key_value_pair& entry : arguments->get_object()) {
    if (!first) prompt.Text("\n");
    first = false;
    AddParameter({entry.key().data(), entry.key().size()}, entry.value(), prompt);
  }
  prompt.Text("\n</");
  prompt.Token(special::kDsml);
  prompt.Text("invoke>");
}

}  // namespace

void AddTools(const ChatMessage& message, const ChatTexts& texts, ChatPrompt& prompt) {
  if (message.tools.empty()) return;
  std::string schemas;
  for (const std::string& tool : message.tools) {
    absl::StrAppend(&schemas, schemas.empty() ? "" : "\n", Normal(tool));
  }
  AddFramed(texts.tools, "{tool_schemas}", schemas, prompt);
}

void AddResponseFormat(const ChatMessage& message, const ChatTexts& texts, ChatPrompt& prompt) {
  if (message.response_format.empty()) return;
  AddFramed(texts.response_format, "{schema}", Normal(message.response_format), prompt);
}

void AddDsmlCalls(const ChatMessage& message, std::string_view block, ChatPrompt& prompt) {
  if (message.tool_calls.empty()) return;
  const std::string name(block);
  prompt.Text("\n\n<");
  prompt.Token(special::kDsml);
  prompt.Text(name + ">\n");
  for (const ChatToolCall& call : message.tool_calls) {
    AddInvoke(call, prompt);
    prompt.Text("\n");
  }
  prompt.Text("</");
  prompt.Token(special::kDsml);
  prompt.Text(name + ">");
}

int LastUser(std::span<const ChatMessage> messages) {
  for (size_t i = messages.size(); i-- > 0;) {
    if (messages[i].role == "user" || messages[i].role == "developer") return static_cast<int>(i);
  }
  return -1;
}

}  // namespace expertmesh::model

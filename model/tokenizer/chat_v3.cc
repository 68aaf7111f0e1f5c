// DeepSeek-V3, R1 and V3.1: system texts in front, tool calls between tokens of their own.
#include <string_view>

#include "model/tokenizer/chat_encoders.h"
#include "model/tokenizer/special_tokens.h"

namespace expertmesh::model {
namespace {

class V3Chat {
 public:
  V3Chat(ChatEncoding encoding, std::span<const ChatMessage> messages, const ChatOptions& options,
         ChatPrompt& prompt)
      : v31_(encoding == ChatEncoding::kV31),
        r1_(encoding == ChatEncoding::kR1),
        messages_(messages),
        options_(options),
        texts_(TextsOf(options, encoding)),
        prompt_(prompt) {}

  void Add() {
    prompt_.Token(special::kBos);
    SystemTexts();
    for (size_t i = 0; i < messages_.size(); ++i) {
      const ChatMessage& message = messages_[i];
      if (IsSystem(message)) continue;
      if (message.role == "tool") {
        Result(message.content);
        continue;
      }
      if (message.role == "user") {
        CloseResults();
        prompt_.Token(special::kUser);
        prompt_.Text(message.content);
        after_user_ = true;
      } else {
        Answer(message, options_.continue_final && i + 1 == messages_.size());
      }
      after_tool_ = false;
    }
    CloseResults();
    GenerationPrompt();
  }

 private:
  static bool IsSystem(const ChatMessage& message) {
    return message.role == "system" || message.role == "developer";
  }

  void SystemTexts() {
    bool first = true;
    for (const ChatMessage& message : messages_) {
      if (!IsSystem(message)) continue;
      if (!first) prompt_.Text("\n\n");
      prompt_.Text(message.content);
      first = false;
    }
    for (const ChatMessage& message : messages_) {
      if (!message.tools.empty()) prompt_.Text("\n\n");
      AddTools(message, texts_, prompt_);
      if (!message.response_format.empty()) prompt_.Text("\n\n");
      AddResponseFormat(message, texts_, prompt_);
    }
  }

  void Answer(const ChatMessage& message, bool open) {
    const std::string_view answer = WithoutReasoning(message.content);
    if (after_tool_) {
      CloseResults();
    } else if (!v31_ || after_user_) {
      prompt_.Token(special::kAssistant);
    }
    if (v31_ && after_user_) {
      // An open answer without an end mark is still reasoning.
      const bool reasoning = open && options_.thinking && answer.size() == message.content.size();
      prompt_.Token(reasoning ? special::kThink : special::kEndThink);
    }
    after_user_ = false;
    // An answer with calls, or to a tool's result, is kept as it is.
    const bool keep = after_tool_ || !message.tool_calls.empty();
    prompt_.Text(keep ? std::string_view(message.content) : answer);
    Calls(message);
    if (!open) prompt_.Token(special::kEos);
  }

  // Reasoning and its end mark, which V3.1 and R1 leave out of earlier answers.
  std::string_view WithoutReasoning(std::string_view content) const {
    if (!v31_ && !r1_) return content;
    const size_t mark = v31_ ? content.find(special::kEndThink) : content.rfind(special::kEndThink);
    return mark == std::string_view::npos ? content
                                          : content.substr(mark + special::kEndThink.size());
  }

  void Calls(const ChatMessage& message) {
    if (message.tool_calls.empty()) return;
    prompt_.Token(special::kToolCallsBegin);
    bool first = true;
    for (const ChatToolCall& call : message.tool_calls) {
      if (!first && !v31_) prompt_.Text("\n");
      first = false;
      prompt_.Token(special::kToolCallBegin);
      prompt_.Text(v31_ ? std::string_view(call.name) : "function");
      prompt_.Token(special::kToolSep);
      if (v31_) {
        prompt_.Text(call.arguments);
      } else {
        prompt_.Text(call.name + "\n```json\n" + call.arguments + "\n```");
      }
      prompt_.Token(special::kToolCallEnd);
    }
    prompt_.Token(special::kToolCallsEnd);
  }

  void Result(std::string_view content) {
    if (!v31_ && !results_open_) prompt_.Token(special::kToolOutputsBegin);
    results_open_ = !v31_;
    prompt_.Token(special::kToolOutputBegin);
    prompt_.Text(content);
    prompt_.Token(special::kToolOutputEnd);
    after_tool_ = true;
    after_user_ = false;
  }

  void CloseResults() {
    if (results_open_) prompt_.Token(special::kToolOutputsEnd);
    results_open_ = false;
  }

  // After a result the model goes on by itself. V3.1's template opens an answer only to a user's
  // turn; V3's and R1's always do.
  void GenerationPrompt() {
    if (!options_.add_generation_prompt || options_.continue_final || after_tool_) return;
    if (v31_ && !after_user_) return;
    prompt_.Token(special::kAssistant);
    if (v31_) prompt_.Token(options_.thinking ? special::kThink : special::kEndThink);
    if (r1_) {
      prompt_.Token(special::kThink);
      prompt_.Text("\n");
    }
  }

  const bool v31_;
  const bool r1_;
  const std::span<const ChatMessage> messages_;
  const ChatOptions& options_;
  const ChatTexts& texts_;
  ChatPrompt& prompt_;
  bool after_user_ = false;    // the last turn was a user's
  bool after_tool_ = false;    // or a tool's
  bool results_open_ = false;  // V3, R1: between the marks around results
};

}  // namespace

void AddV3Chat(ChatEncoding encoding, std::span<const ChatMessage> messages,
               const ChatOptions& options, ChatPrompt& prompt) {
  V3Chat(encoding, messages, options, prompt).Add();
}

}  // namespace expertmesh::model

// DeepSeek-V3.2: DSML calls, results in a block of their own.
#include <string_view>
#include <vector>

#include "model/tokenizer/chat_encoders.h"
#include "model/tokenizer/special_tokens.h"

namespace expertmesh::model {
namespace {

class V32Chat {
 public:
  V32Chat(std::span<const ChatMessage> messages, const ChatOptions& options, ChatPrompt& prompt)
      : options_(options), texts_(TextsOf(options, ChatEncoding::kV32)), prompt_(prompt) {
    const int last_user = LastUser(messages);
    for (size_t i = 0; i < messages.size(); ++i) {
      // Where reasoning is dropped, developer texts before the last question go with it.
      const bool dropped = options.thinking && options.drop_thinking &&
                           messages[i].role == "developer" && static_cast<int>(i) < last_user;
      if (!dropped) messages_.push_back(messages[i]);
    }
    last_user_ = LastUser(messages_);
  }

  void Add() {
    prompt_.Token(special::kBos);
    for (size_t i = 0; i < messages_.size(); ++i) {
      const ChatMessage& message = messages_[i];
      if (message.role == "system") {
        prompt_.Text(message.content);
        Sections(message);
      } else if (message.role == "tool") {
        Result(i);
      } else if (message.role == "assistant") {
        Answer(i);
      } else {
        Question(i);
      }
    }
  }

 private:
  bool IsLast(size_t i) const { return i + 1 == messages_.size(); }
  bool Reasons(bool current) const { return options_.thinking && current; }

  void Sections(const ChatMessage& message) {
    if (!message.tools.empty()) prompt_.Text("\n\n");
    AddTools(message, texts_, prompt_);
    if (!message.response_format.empty()) prompt_.Text("\n\n");
    AddResponseFormat(message, texts_, prompt_);
  }

  void Question(size_t i) {
    const ChatMessage& message = messages_[i];
    prompt_.Token(special::kUser);
    if (message.role == "developer") {
      Sections(message);
      const std::string_view frame = texts_.developer;
      constexpr std::string_view kMark = "{content}";
      const size_t at = frame.find(kMark);
      prompt_.Own(frame.substr(0, at));
      prompt_.Text(message.content);
      if (at != std::string_view::npos) prompt_.Own(frame.substr(at + kMark.size()));
    } else {
      prompt_.Text(message.content);
    }
    if (IsLast(i) && !options_.add_generation_prompt) return;
    prompt_.Token(special::kAssistant);
    Mark(Reasons(static_cast<int>(i) == last_user_));
  }

  void Answer(size_t i) {
    const ChatMessage& message = messages_[i];
    const bool open = options_.continue_final && IsLast(i);
    if (Reasons(static_cast<int>(i) > last_user_)) {
      prompt_.Text(message.reasoning);
      const bool in_reasoning = open && message.content.empty() && message.tool_calls.empty();
      if (!in_reasoning) prompt_.Token(special::kEndThink);
    }
    prompt_.Text(message.content);
    AddDsmlCalls(message, "function_calls", prompt_);
    if (!open) prompt_.Token(special::kEos);
  }

  // CheckMessages has made sure that a run of results follows an answer with as many calls or more.
  void Result(size_t i) {
    size_t answer = i;
    while (messages_[answer].role == "tool") --answer;
    const size_t number = i - answer;
    if (number == 1) prompt_.Text("\n\n<function_results>");
    prompt_.Text("\n<result>");
    prompt_.Text(messages_[i].content);
    prompt_.Text("</result>");
    if (number != messages_[answer].tool_calls.size()) return;
    prompt_.Text("\n</function_results>\n\n");
    Mark(Reasons(static_cast<int>(i) >= last_user_));
  }

  void Mark(bool reasons) { prompt_.Token(reasons ? special::kThink : special::kEndThink); }

  const ChatOptions& options_;
  const ChatTexts& texts_;
  ChatPrompt& prompt_;
  std::vector<ChatMessage> messages_;
  int last_user_ = -1;
};

}  // namespace

void AddV32Chat(std::span<const ChatMessage> messages, const ChatOptions& options,
                ChatPrompt& prompt) {
  V32Chat(messages, options, prompt).Add();
}

}  // namespace expertmesh::model

// DeepSeek-V4: DSML calls, results as parts of user messages.
#include <algorithm>
#include <string_view>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"
#include "model/tokenizer/chat_encoders.h"
#include "model/tokenizer/special_tokens.h"

namespace expertmesh::model {
namespace {

// A message, or several user and tool messages in a row as one.
struct Turn {
  const ChatMessage* message;                  // the first of them
  std::vector<const ChatMessage*> parts = {};  // of a user's turn
  bool is_user = false;
};

std::vector<Turn> MergeTurns(std::span<const ChatMessage> messages) {
  std::vector<Turn> turns;
  for (const ChatMessage& message : messages) {
    const bool is_tool = message.role == "tool";
    if (!is_tool && message.role != "user") {
      turns.push_back({.message = &message});
      continue;
    }
    const bool joins =
        !turns.empty() && turns.back().is_user && (is_tool || turns.back().message->task.empty());
    if (!joins) turns.push_back({.message = &message, .is_user = true});
    turns.back().parts.push_back(&message);
  }
  return turns;
}

// The results of a turn in the order of the calls that they answer; unknown ids count as the first.
void SortResults(std::vector<Turn>& turns) {
  absl::flat_hash_map<std::string, size_t> order;
  for (Turn& turn : turns) {
    if (!turn.message->tool_calls.empty()) {
      order.clear();
      for (size_t i = 0; i < turn.message->tool_calls.size(); ++i) {
        const std::string& id = turn.message->tool_calls[i].id;
        if (!id.empty()) order.insert_or_assign(id, i);
      }
    }
    std::vector<const ChatMessage*> results;
    for (const ChatMessage* part : turn.parts) {
      if (part->role == "tool") results.push_back(part);
    }
    const auto place = [&](const ChatMessage* result) {
      const auto it = order.find(result->tool_call_id);
      return it == order.end() ? size_t{0} : it->second;
    };
    std::stable_sort(
        results.begin(), results.end(),
        [&](const ChatMessage* a, const ChatMessage* b) { return place(a) < place(b); });
    auto next = results.begin();
    for (const ChatMessage*& part : turn.parts) {
      if (part->role == "tool") part = *next++;
    }
  }
}

int LastQuestion(const std::vector<Turn>& turns) {
  for (size_t i = turns.size(); i-- > 0;) {
    if (turns[i].is_user || turns[i].message->role == "developer") return static_cast<int>(i);
  }
  return -1;
}

class V4Chat {
 public:
  V4Chat(std::span<const ChatMessage> messages, const ChatOptions& options, ChatPrompt& prompt)
      : options_(options),
        texts_(TextsOf(options, ChatEncoding::kV4)),
        prompt_(prompt),
        turns_(MergeTurns(messages)) {
    SortResults(turns_);
    const bool has_tools = std::any_of(messages.begin(), messages.end(),
                                       [](const ChatMessage& m) { return !m.tools.empty(); });
    drop_ = options.drop_thinking && !has_tools;
    if (options.thinking && drop_) {
      int left = LastQuestion(turns_);
      std::erase_if(turns_, [&](const Turn& turn) {
        return left-- > 0 && turn.message->role == "developer";
      });
    }
    last_user_ = LastQuestion(turns_);
  }

  void Add() {
    prompt_.Token(special::kBos);
    if (options_.thinking && options_.reasoning_effort == "max") prompt_.Own(texts_.effort_max);
    if (options_.thinking && options_.reasoning_effort == "high") prompt_.Own(texts_.effort_high);
    for (size_t i = 0; i < turns_.size(); ++i) {
      const ChatMessage& message = *turns_[i].message;
      if (turns_[i].is_user) {
        Question(turns_[i]);
      } else if (message.role == "assistant") {
        Answer(i);
      } else {
        if (message.role == "developer") prompt_.Token(special::kUser);
        if (message.role == "latest_reminder") prompt_.Token(special::kLatestReminder);
        prompt_.Text(message.content);
        if (message.role != "latest_reminder") Sections(message);
      }
      OpenAnswer(i);
    }
  }

 private:
  bool IsLast(size_t i) const { return i + 1 == turns_.size(); }

  void Sections(const ChatMessage& message) {
    if (!message.tools.empty()) prompt_.Text("\n\n");
    AddTools(message, texts_, prompt_);
    if (!message.response_format.empty()) prompt_.Text("\n\n");
    AddResponseFormat(message, texts_, prompt_);
  }

  void Question(const Turn& turn) {
    prompt_.Token(special::kUser);
    bool first = true;
    for (const ChatMessage* part : turn.parts) {
      if (!first) prompt_.Text("\n\n");
      first = false;
      const bool is_tool = part->role == "tool";
      if (is_tool) prompt_.Text("<tool_result>");
      prompt_.Text(part->content);
      if (is_tool) prompt_.Text("</tool_result>");
    }
  }

  void Answer(size_t i) {
    const ChatMessage& message = *turns_[i].message;
    const bool open = options_.continue_final && IsLast(i);
    const bool to_task = i > 0 && !turns_[i - 1].message->task.empty();
    if (options_.thinking && !to_task && (!drop_ || static_cast<int>(i) > last_user_)) {
      prompt_.Text(message.reasoning);
      const bool in_reasoning = open && message.content.empty() && message.tool_calls.empty();
      if (!in_reasoning) prompt_.Token(special::kEndThink);
    }
    prompt_.Text(message.content);
    AddDsmlCalls(message, "tool_calls", prompt_);
    if (!open) prompt_.Token(special::kEos);
  }

  // What stands between a question and the answer, or the reminder, that follows it.
  void OpenAnswer(size_t i) {
    if (IsLast(i) && !options_.add_generation_prompt) return;
    if (!IsLast(i)) {
      const std::string& next = turns_[i + 1].message->role;
      if (turns_[i + 1].is_user || (next != "assistant" && next != "latest_reminder")) return;
    }
    const ChatMessage& message = *turns_[i].message;
    const bool current = !drop_ || static_cast<int>(i) >= last_user_;
    if (!message.task.empty()) {
      if (message.task == "action") OpenWith(options_.thinking);
      prompt_.Token(absl::StrCat("<｜", message.task, "｜>"));
    } else if (turns_[i].is_user || message.role == "developer") {
      OpenWith(options_.thinking && current);
    }
  }

  void OpenWith(bool reasons) {
    prompt_.Token(special::kAssistant);
    prompt_.Token(reasons ? special::kThink : special::kEndThink);
  }

  const ChatOptions& options_;
  const ChatTexts& texts_;
  ChatPrompt& prompt_;
  std::vector<Turn> turns_;
  bool drop_ = false;
  int last_user_ = -1;
};

}  // namespace

void AddV4Chat(std::span<const ChatMessage> messages, const ChatOptions& options,
               ChatPrompt& prompt) {
  V4Chat(messages, options, prompt).Add();
}

}  // namespace expertmesh::model

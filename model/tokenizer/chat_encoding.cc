#include "model/tokenizer/chat_encoding.h"

#include <initializer_list>

#include "absl/strings/str_cat.h"
#include "model/tokenizer/special_tokens.h"
#include "model/tokenizer/utf8.h"
#include "services/base/status.h"

namespace expertmesh::model {
namespace {

absl::Status Invalid(size_t index, std::string_view field, std::string_view why) {
  return base::Error(
      base::Reason::kInvalidArgument,
      absl::StrCat("messages[", index, "].", std::string(field), ": ", std::string(why)));
}

bool HasTokens(const Tokenizer& tokenizer, std::initializer_list<std::string_view> names) {
  for (const std::string_view name : names) {
    if (!tokenizer.IdOf(name).has_value()) return false;
  }
  return true;
}

bool Supports(const Tokenizer& tokenizer, ChatEncoding encoding) {
  switch (encoding) {
    case ChatEncoding::kNone:
      return true;
    case ChatEncoding::kV3:
      return HasTokens(tokenizer,
                       {special::kBos, special::kEos, special::kUser, special::kAssistant});
    case ChatEncoding::kV31:
      return Supports(tokenizer, ChatEncoding::kV3) &&
             HasTokens(tokenizer, {special::kThink, special::kEndThink});
  }
  return false;
}

bool IsSystem(const ChatMessage& message) {
  return message.role == "system" || message.role == "developer";
}

absl::Status CheckMessages(std::span<const ChatMessage> messages, const ChatOptions& options) {
  if (messages.empty()) {
    return base::Error(base::Reason::kInvalidArgument, "messages is empty: send at least one");
  }
  for (size_t i = 0; i < messages.size(); ++i) {
    const std::string& role = messages[i].role;
    if (!IsSystem(messages[i]) && role != "user" && role != "assistant") {
      return Invalid(i, "role", "is not one of system, developer, user, assistant");
    }
    if (const auto offset = FindInvalidUtf8(messages[i].content); offset.has_value()) {
      return Invalid(i, "content", absl::StrCat("is not UTF-8 at byte ", *offset));
    }
  }
  if (options.continue_final && messages.back().role != "assistant") {
    return Invalid(messages.size() - 1, "role", "only an assistant message can be continued");
  }
  return absl::OkStatus();
}

// Reasoning and its end mark, which V3.1 leaves out of earlier answers.
std::string_view WithoutReasoning(std::string_view content) {
  const size_t mark = content.find(special::kEndThink);
  return mark == std::string_view::npos ? content
                                        : content.substr(mark + special::kEndThink.size());
}

class Prompt {
 public:
  Prompt(const Tokenizer& tokenizer, ChatEncoding encoding, const ChatOptions& options)
      : tokenizer_(tokenizer), v31_(encoding == ChatEncoding::kV31), options_(options) {}

  absl::StatusOr<std::vector<uint32_t>> Build(std::span<const ChatMessage> messages) {
    Token(special::kBos);
    EM_RETURN_IF_ERROR(SystemTexts(messages));
    for (size_t i = 0; i < messages.size(); ++i) {
      if (IsSystem(messages[i])) continue;
      if (messages[i].role == "user") {
        Token(special::kUser);
        EM_RETURN_IF_ERROR(Text(Where(i), messages[i].content));
        after_user_ = true;
      } else {
        const bool open = options_.continue_final && i + 1 == messages.size();
        EM_RETURN_IF_ERROR(Answer(i, messages[i].content, open));
      }
    }
    // V3.1's template opens an answer only to a user's turn; V3's always does.
    if (options_.add_generation_prompt && !options_.continue_final && (!v31_ || after_user_)) {
      Token(special::kAssistant);
      if (v31_) Token(options_.thinking ? special::kThink : special::kEndThink);
    }
    return std::move(ids_);
  }

 private:
  static std::string Where(size_t index) { return absl::StrCat("messages[", index, "].content: "); }

  void Token(std::string_view name) { ids_.push_back(*tokenizer_.IdOf(name)); }

  absl::Status Text(std::string_view where, std::string_view text) {
    absl::StatusOr<std::vector<uint32_t>> ids = tokenizer_.Encode(text, false);
    if (!ids.ok()) return base::Annotate(ids.status(), where);
    ids_.insert(ids_.end(), ids->begin(), ids->end());
    return absl::OkStatus();
  }

  absl::Status SystemTexts(std::span<const ChatMessage> messages) {
    std::string joined;
    bool first = true;
    for (const ChatMessage& message : messages) {
      if (!IsSystem(message)) continue;
      absl::StrAppend(&joined, first ? "" : "\n\n", message.content);
      first = false;
    }
    return Text("messages: ", joined);
  }

  absl::Status Answer(size_t index, std::string_view content, bool open) {
    const std::string_view answer = v31_ ? WithoutReasoning(content) : content;
    if (!v31_ || after_user_) Token(special::kAssistant);
    if (v31_ && after_user_) {
      // An open answer without an end mark is still reasoning.
      const bool reasoning = open && options_.thinking && answer.size() == content.size();
      Token(reasoning ? special::kThink : special::kEndThink);
    }
    after_user_ = false;
    EM_RETURN_IF_ERROR(Text(Where(index), answer));
    if (!open) Token(special::kEos);
    return absl::OkStatus();
  }

  const Tokenizer& tokenizer_;
  const bool v31_;
  const ChatOptions options_;
  std::vector<uint32_t> ids_;
  bool after_user_ = false;  // the last turn was a user's
};

}  // namespace

ChatEncoding DetectChatEncoding(std::string_view model_type, const Tokenizer& tokenizer) {
  if (model_type != "deepseek_v3" && model_type != "expertmesh") return ChatEncoding::kNone;
  for (const ChatEncoding encoding : {ChatEncoding::kV31, ChatEncoding::kV3}) {
    if (Supports(tokenizer, encoding)) return encoding;
  }
  return ChatEncoding::kNone;
}

absl::StatusOr<ChatEncoding> ChatEncodingFromFlag(std::string_view flag,
                                                  std::string_view model_type,
                                                  const Tokenizer& tokenizer) {
  if (flag == "auto") return DetectChatEncoding(model_type, tokenizer);
  if (flag != "v3" && flag != "v3.1") {
    return base::Error(
        base::Reason::kInvalidArgument,
        absl::StrCat("--chat-encoding ", std::string(flag), " is not auto, v3 or v3.1"));
  }
  const ChatEncoding encoding = flag == "v3" ? ChatEncoding::kV3 : ChatEncoding::kV31;
  if (Supports(tokenizer, encoding)) return encoding;
  return base::Error(base::Reason::kInvalidArgument,
                     absl::StrCat("--chat-encoding ", std::string(flag),
                                  ": the tokenizer lacks its chat tokens, use auto"));
}

absl::StatusOr<std::vector<uint32_t>> EncodeChat(const Tokenizer& tokenizer, ChatEncoding encoding,
                                                 std::span<const ChatMessage> messages,
                                                 const ChatOptions& options) {
  if (encoding == ChatEncoding::kNone || !Supports(tokenizer, encoding)) {
    return base::Error(base::Reason::kChatEncodingUnknown,
                       "this model has no chat encoding: use /v1/completions");
  }
  EM_RETURN_IF_ERROR(CheckMessages(messages, options));
  return Prompt(tokenizer, encoding, options).Build(messages);
}

}  // namespace expertmesh::model

#include "model/tokenizer/chat_encoding.h"

#include <initializer_list>
#include <optional>

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

// The prompt as chat tokens and the texts between them. Neighbouring texts are one text, as in the
// string that DeepSeek's template renders.
class Prompt {
 public:
  Prompt(const Tokenizer& tokenizer, ChatEncoding encoding, const ChatOptions& options)
      : tokenizer_(tokenizer), v31_(encoding == ChatEncoding::kV31), options_(options) {}

  void Add(std::span<const ChatMessage> messages) {
    Token(special::kBos);
    SystemTexts(messages);
    for (size_t i = 0; i < messages.size(); ++i) {
      if (IsSystem(messages[i])) continue;
      if (messages[i].role == "user") {
        Token(special::kUser);
        Text(messages[i].content);
        after_user_ = true;
      } else {
        Answer(messages[i].content, options_.continue_final && i + 1 == messages.size());
      }
    }
    // V3.1's template opens an answer only to a user's turn; V3's always does.
    if (options_.add_generation_prompt && !options_.continue_final && (!v31_ || after_user_)) {
      Token(special::kAssistant);
      if (v31_) Token(options_.thinking ? special::kThink : special::kEndThink);
    }
  }

  absl::StatusOr<std::vector<uint32_t>> Encode() const {
    std::vector<uint32_t> ids;
    for (const Part& part : parts_) {
      if (part.token.has_value()) {
        ids.push_back(*part.token);
        continue;
      }
      absl::StatusOr<std::vector<uint32_t>> text = tokenizer_.Encode(part.text, false);
      if (!text.ok()) return base::Annotate(text.status(), "messages: ");
      ids.insert(ids.end(), text->begin(), text->end());
    }
    return ids;
  }

 private:
  struct Part {
    std::optional<uint32_t> token;
    std::string text;
  };

  void Token(std::string_view name) { parts_.push_back({tokenizer_.IdOf(name), {}}); }

  void Text(std::string_view text) {
    if (parts_.back().token.has_value()) parts_.emplace_back();
    parts_.back().text += text;
  }

  void SystemTexts(std::span<const ChatMessage> messages) {
    bool first = true;
    for (const ChatMessage& message : messages) {
      if (!IsSystem(message)) continue;
      if (!first) Text("\n\n");
      Text(message.content);
      first = false;
    }
  }

  void Answer(std::string_view content, bool open) {
    const std::string_view answer = v31_ ? WithoutReasoning(content) : content;
    if (!v31_ || after_user_) Token(special::kAssistant);
    if (v31_ && after_user_) {
      // An open answer without an end mark is still reasoning.
      const bool reasoning = open && options_.thinking && answer.size() == content.size();
      Token(reasoning ? special::kThink : special::kEndThink);
    }
    after_user_ = false;
    Text(answer);
    if (!open) Token(special::kEos);
  }

  const Tokenizer& tokenizer_;
  const bool v31_;
  const ChatOptions options_;
  std::vector<Part> parts_;  // the first is BOS
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
  Prompt prompt(tokenizer, encoding, options);
  prompt.Add(messages);
  return prompt.Encode();
}

}  // namespace expertmesh::model

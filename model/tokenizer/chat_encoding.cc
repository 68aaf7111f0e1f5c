#include "model/tokenizer/chat_encoding.h"

#include <algorithm>
#include <array>
#include <boost/json/object.hpp>
#include <filesystem>
#include <fstream>
#include <optional>
#include <sstream>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "model/tokenizer/chat_encoders.h"
#include "model/tokenizer/chat_prompt.h"
#include "model/tokenizer/python_json.h"
#include "model/tokenizer/special_tokens.h"
#include "model/tokenizer/utf8.h"
#include "services/base/status.h"

namespace expertmesh::model {
namespace {

struct Known {
  ChatEncoding encoding;
  std::string_view name;
};

constexpr std::array<Known, 5> kKnown = {{{ChatEncoding::kV3, "v3"},
                                          {ChatEncoding::kR1, "r1"},
                                          {ChatEncoding::kV31, "v3.1"},
                                          {ChatEncoding::kV32, "v3.2"},
                                          {ChatEncoding::kV4, "v4"}}};
constexpr std::array<const char*, 6> kTasks = {"action", "query", "authority",
                                               "domain", "title", "read_url"};

absl::Status Invalid(size_t index, std::string_view field, std::string_view why) {
  return base::Error(
      base::Reason::kInvalidArgument,
      absl::StrCat("messages[", index, "].", std::string(field), ": ", std::string(why)));
}

// The first token that the encoding cannot do without and the tokenizer lacks; empty if none.
std::string_view MissingToken(const Tokenizer& tokenizer, ChatEncoding encoding) {
  std::vector<std::string_view> needed = {special::kBos, special::kEos, special::kUser,
                                          special::kAssistant};
  if (HasThinking(encoding)) {
    needed.insert(needed.end(), {special::kThink, special::kEndThink});
  }
  if (encoding == ChatEncoding::kV4) needed.push_back(special::kDsml);
  for (const std::string_view name : needed) {
    if (!tokenizer.IdOf(name).has_value()) return name;
  }
  return {};
}

bool Supports(const Tokenizer& tokenizer, ChatEncoding encoding) {
  return encoding != ChatEncoding::kNone && MissingToken(tokenizer, encoding).empty();
}

bool IsOneOf(std::string_view word, std::initializer_list<std::string_view> words) {
  return std::find(words.begin(), words.end(), word) != words.end();
}

absl::Status CheckText(size_t index, std::string_view field, std::string_view text) {
  const std::optional<size_t> offset = FindInvalidUtf8(text);
  if (!offset.has_value()) return absl::OkStatus();
  return Invalid(index, field, absl::StrCat("is not UTF-8 at byte ", *offset));
}

absl::Status CheckExtras(ChatEncoding encoding, const ChatMessage& message, size_t i) {
  EM_RETURN_IF_ERROR(CheckText(i, "content", message.content));
  EM_RETURN_IF_ERROR(CheckText(i, "reasoning_content", message.reasoning));
  EM_RETURN_IF_ERROR(CheckText(i, "response_format", message.response_format));
  for (const std::string& tool : message.tools) EM_RETURN_IF_ERROR(CheckText(i, "tools", tool));
  for (const ChatToolCall& call : message.tool_calls) {
    EM_RETURN_IF_ERROR(CheckText(i, "tool_calls", call.name));
    EM_RETURN_IF_ERROR(CheckText(i, "tool_calls", call.arguments));
  }
  const bool is_system = message.role == "system" || message.role == "developer";
  if (!is_system && !message.tools.empty()) return Invalid(i, "tools", "stands in system messages");
  if (!is_system && !message.response_format.empty()) {
    return Invalid(i, "response_format", "stands in system messages");
  }
  if (message.role != "assistant" && !message.tool_calls.empty()) {
    return Invalid(i, "tool_calls", "only an assistant message can have them");
  }
  if (message.task.empty()) return absl::OkStatus();
  if (encoding != ChatEncoding::kV4) return Invalid(i, "task", "only encoding v4 has tasks");
  if (std::find(kTasks.begin(), kTasks.end(), message.task) == kTasks.end()) {
    return Invalid(i, "task", absl::StrCat("is not one of ", absl::StrJoin(kTasks, ", ")));
  }
  return absl::OkStatus();
}

// A result answers a call: it stands behind an answer with calls, or behind another result.
absl::Status CheckResult(std::span<const ChatMessage> messages, size_t i) {
  size_t answer = i;
  while (answer > 0 && messages[answer].role == "tool") --answer;
  const size_t number = i - answer;
  if (messages[answer].role != "assistant" || messages[answer].tool_calls.size() < number) {
    return Invalid(i, "role", "a tool message must follow an assistant message with its call");
  }
  return absl::OkStatus();
}

absl::Status CheckMessages(ChatEncoding encoding, std::span<const ChatMessage> messages,
                           const ChatOptions& options) {
  if (messages.empty()) {
    return base::Error(base::Reason::kInvalidArgument, "messages is empty: send at least one");
  }
  for (size_t i = 0; i < messages.size(); ++i) {
    const std::string& role = messages[i].role;
    const bool reminder = role == "latest_reminder" && encoding == ChatEncoding::kV4;
    if (!reminder && !IsOneOf(role, {"system", "developer", "user", "assistant", "tool"})) {
      return Invalid(i, "role", "is not one of system, developer, user, assistant, tool");
    }
    EM_RETURN_IF_ERROR(CheckExtras(encoding, messages[i], i));
    // V4 folds results into user messages, wherever they stand.
    if (role == "tool" && encoding != ChatEncoding::kV4) {
      EM_RETURN_IF_ERROR(CheckResult(messages, i));
    }
  }
  if (options.continue_final && messages.back().role != "assistant") {
    return Invalid(messages.size() - 1, "role", "only an assistant message can be continued");
  }
  return absl::OkStatus();
}

std::string ReadText(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

}  // namespace

std::string LoadChatTemplate(const std::string& directory) {
  const std::filesystem::path folder(directory);
  const auto config = ParseJson(ReadText(folder / "tokenizer_config.json"));
  if (config.has_value() && config->is_object()) {
    const boost::json::value* text = config->get_object().if_contains("chat_template");
    if (text != nullptr && text->is_string()) {
      return {text->get_string().data(), text->get_string().size()};
    }
  }
  return ReadText(folder / "chat_template.jinja");
}

bool HasThinking(ChatEncoding encoding) {
  return encoding != ChatEncoding::kNone && encoding != ChatEncoding::kV3;
}

std::string_view ChatEncodingName(ChatEncoding encoding) {
  for (const Known& known : kKnown) {
    if (known.encoding == encoding) return known.name;
  }
  return "none";
}

ChatEncoding DetectChatEncoding(const ChatFamily& family, const Tokenizer& tokenizer) {
  std::vector<ChatEncoding> candidates;
  if (IsOneOf(family.model_type, {"deepseek_v3", "expertmesh"})) {
    const bool opens_with_think =
        family.chat_template.find(absl::StrCat(std::string(special::kAssistant),
                                               std::string(special::kThink))) != std::string::npos;
    candidates = {opens_with_think ? ChatEncoding::kR1 : ChatEncoding::kV31, ChatEncoding::kV3};
  } else if (family.model_type == "deepseek_v32") {
    candidates = {family.chat_template.empty() ? ChatEncoding::kV32 : ChatEncoding::kV31};
  } else if (family.model_type == "deepseek_v4") {
    candidates = {ChatEncoding::kV4};
  }
  for (const ChatEncoding encoding : candidates) {
    if (Supports(tokenizer, encoding)) return encoding;
  }
  return ChatEncoding::kNone;
}

absl::StatusOr<ChatEncoding> ChatEncodingFromFlag(std::string_view flag, const ChatFamily& family,
                                                  const Tokenizer& tokenizer) {
  if (flag == "auto") return DetectChatEncoding(family, tokenizer);
  std::vector<std::string> usable;
  for (const Known& known : kKnown) {
    if (Supports(tokenizer, known.encoding)) usable.emplace_back(known.name);
  }
  const std::string start = absl::StrCat("--chat-encoding ", std::string(flag), ": ");
  for (const Known& known : kKnown) {
    if (known.name != flag) continue;
    if (Supports(tokenizer, known.encoding)) return known.encoding;
    return base::Error(base::Reason::kInvalidArgument,
                       absl::StrCat(start, "the tokenizer has no token ",
                                    std::string(MissingToken(tokenizer, known.encoding)),
                                    "; it has the tokens of: auto", usable.empty() ? "" : ", ",
                                    absl::StrJoin(usable, ", ")));
  }
  return base::Error(base::Reason::kInvalidArgument,
                     absl::StrCat(start, "is not one of auto, v3, r1, v3.1, v3.2, v4"));
}

absl::StatusOr<std::vector<uint32_t>> EncodeChat(const Tokenizer& tokenizer, ChatEncoding encoding,
                                                 std::span<const ChatMessage> messages,
                                                 const ChatOptions& options) {
  if (!Supports(tokenizer, encoding)) {
    return base::Error(base::Reason::kChatEncodingUnknown,
                       "this model has no chat encoding: use /v1/completions");
  }
  EM_RETURN_IF_ERROR(CheckMessages(encoding, messages, options));
  ChatPrompt prompt(tokenizer);
  if (encoding == ChatEncoding::kV32) {
    AddV32Chat(messages, options, prompt);
  } else if (encoding == ChatEncoding::kV4) {
    AddV4Chat(messages, options, prompt);
  } else {
    AddV3Chat(encoding, messages, options, prompt);
  }
  return prompt.Encode();
}

}  // namespace expertmesh::model

// Conversations as tokens, in the encodings of DeepSeek-V3, R1, V3.1, V3.2 and V4
// (docs/formats.md §8.2–8.5). Pure functions, any thread.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "model/tokenizer/chat_message.h"
#include "model/tokenizer/chat_texts.h"
#include "model/tokenizer/tokenizer.h"

namespace expertmesh::model {

enum class ChatEncoding { kNone, kV3, kR1, kV31, kV32, kV4 };

struct ChatOptions {
  bool thinking = false;  // the answer starts with reasoning. V3 has no such mode, R1 no other
  bool add_generation_prompt = true;
  bool continue_final =
      false;                  // the last message is the answer so far: left open, nothing behind it
  bool drop_thinking = true;  // V3.2, V4: no reasoning of answers before the last question
  std::string reasoning_effort = {};  // V4, thinking: "high" or "max"; else as the model pleases
  const ChatTexts* texts = nullptr;   // null: our own wording
};

/// What tells encodings apart. `chat_template` is the text of the model's Jinja template, if it has
/// one.
struct ChatFamily {
  std::string model_type = {};
  std::string chat_template = {};
};

/// chat_template of DIR/tokenizer_config.json or the text of DIR/chat_template.jinja; empty if
/// there is none or it cannot be read.
std::string LoadChatTemplate(const std::string& directory);

/// `--chat-encoding auto` (docs/architecture.md §12), by model_type, by the names of the chat
/// tokens and by the template: R1 and V3.1 have the same tokens, but R1's template opens every
/// answer with <think>; V3.2-Exp has V3.1's template, V3.2 none. kNone for a family without an
/// encoding, or a tokenizer without its chat tokens.
ChatEncoding DetectChatEncoding(const ChatFamily& family, const Tokenizer& tokenizer);

/// "none", "v3", "r1", "v3.1", "v3.2" or "v4".
std::string_view ChatEncodingName(ChatEncoding encoding);

/// The value of --chat-encoding: "auto" or a name. kInvalidArgument, one line, for another value,
/// or for an encoding that the tokenizer lacks tokens of: it names the first that is missing and
/// the encodings that there are tokens for.
absl::StatusOr<ChatEncoding> ChatEncodingFromFlag(std::string_view flag, const ChatFamily& family,
                                                  const Tokenizer& tokenizer);

/// True if answers can begin with reasoning.
bool HasThinking(ChatEncoding encoding);

/// The prompt. Contents never become chat tokens, whatever they spell. Errors: kChatEncodingUnknown
/// for kNone; kInvalidArgument naming messages[i].role, .content, .tools, ….
absl::StatusOr<std::vector<uint32_t>> EncodeChat(const Tokenizer& tokenizer, ChatEncoding encoding,
                                                 std::span<const ChatMessage> messages,
                                                 const ChatOptions& options);

}  // namespace expertmesh::model

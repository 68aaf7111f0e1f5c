// Conversations as tokens, in the encodings of DeepSeek-V3 and V3.1 without tools
// (docs/formats.md §8.2, §8.3). Pure functions, any thread.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "model/tokenizer/tokenizer.h"

namespace expertmesh::model {

enum class ChatEncoding { kNone, kV3, kV31 };

struct ChatMessage {
  std::string role;  // "system", "developer" (read as system), "user" or "assistant"
  std::string content;
};

struct ChatOptions {
  bool thinking = false;  // V3.1: the answer starts with reasoning. V3 has no such mode
  bool add_generation_prompt = true;
  bool continue_final =
      false;  // the last message is the answer so far: left open, nothing behind it
};

/// `--chat-encoding auto` (docs/architecture.md §12): V3.1 if the family's tokenizer has <think>,
/// V3 if not; kNone for a family without an encoding, or a tokenizer without its chat tokens.
ChatEncoding DetectChatEncoding(std::string_view model_type, const Tokenizer& tokenizer);

/// The value of --chat-encoding: "auto", "v3" or "v3.1". kInvalidArgument for another value, or for
/// an encoding that the tokenizer lacks tokens of.
absl::StatusOr<ChatEncoding> ChatEncodingFromFlag(std::string_view flag,
                                                  std::string_view model_type,
                                                  const Tokenizer& tokenizer);

/// The prompt. Contents never become chat tokens, whatever they spell. System texts, wherever they
/// stand, are joined by blank lines at the front, as in DeepSeek's templates. V3.1 cuts the
/// reasoning (up to and including </think>) from earlier answers. Errors: kChatEncodingUnknown for
/// kNone; kInvalidArgument naming messages[i].role or messages[i].content.
absl::StatusOr<std::vector<uint32_t>> EncodeChat(const Tokenizer& tokenizer, ChatEncoding encoding,
                                                 std::span<const ChatMessage> messages,
                                                 const ChatOptions& options);

}  // namespace expertmesh::model

// The published chat encodings, one function each, over checked messages (chat_encoding.cc).
// Inner header of chat_encoding.h. Pure, any thread.
#pragma once

#include <span>
#include <string>
#include <string_view>

#include "model/tokenizer/chat_encoding.h"
#include "model/tokenizer/chat_prompt.h"

namespace expertmesh::model {

/// V3, R1 and V3.1 (docs/formats.md §8.2, §8.3).
void AddV3Chat(ChatEncoding encoding, std::span<const ChatMessage> messages,
               const ChatOptions& options, ChatPrompt& prompt);
/// V3.2 (§8.4).
void AddV32Chat(std::span<const ChatMessage> messages, const ChatOptions& options,
                ChatPrompt& prompt);
/// V4 (§8.5).
void AddV4Chat(std::span<const ChatMessage> messages, const ChatOptions& options,
               ChatPrompt& prompt);

/// The texts of the options, or our own wording.
const ChatTexts& TextsOf(const ChatOptions& options, ChatEncoding encoding);
/// The tool section with its schemas, one a line.
void AddTools(const ChatMessage& message, const ChatTexts& texts, ChatPrompt& prompt);
/// The response-format section with its schema.
void AddResponseFormat(const ChatMessage& message, const ChatTexts& texts, ChatPrompt& prompt);
/// The calls of a DSML encoding: `block` is function_calls or tool_calls.
void AddDsmlCalls(const ChatMessage& message, std::string_view block, ChatPrompt& prompt);
/// The last user or developer message; −1 if there is none.
int LastUser(std::span<const ChatMessage> messages);

}  // namespace expertmesh::model

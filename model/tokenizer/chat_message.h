// A conversation as the chat encodings read it (docs/formats.md §8).
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace expertmesh::model {

struct ChatToolCall {
  std::string id;         // what a tool message answers; may be empty
  std::string name;       // of the function
  std::string arguments;  // JSON object as text
  bool operator==(const ChatToolCall&) const = default;
};

struct ChatMessage {
  std::string role;     // "system", "developer", "user", "assistant", "tool", "latest_reminder"
  std::string content;  // of a tool message: the result
  std::string reasoning = {};                 // assistant: reasoning_content
  std::vector<ChatToolCall> tool_calls = {};  // assistant
  std::string tool_call_id = {};              // tool
  std::vector<std::string> tools = {};        // system, developer: function schemas, one JSON each
  std::string response_format = {};           // system, developer: JSON schema
  std::string task = {};                      // V4, user: "action", "query", …
  bool operator==(const ChatMessage&) const = default;
};

}  // namespace expertmesh::model

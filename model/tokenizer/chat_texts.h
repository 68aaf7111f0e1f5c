// The prose that an encoding puts around tools, response formats and reasoning effort. It belongs
// to the model, not to us (docs/formats.md §8): it is read from the model directory, and where that
// has none our own neutral wording stands in, which a published model was not trained on.
#pragma once

#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace expertmesh::model {

/// Names of chat tokens in these texts become the tokens; what replaces a mark in braces never
/// does.
struct ChatTexts {
  std::string tools = {};            // {tool_schemas}: one JSON schema a line
  std::string response_format = {};  // {schema}: a JSON schema
  std::string developer = {};        // V3.2, {content}: what a developer message says
  std::string effort_high = {};      // V4, in front of everything
  std::string effort_max = {};
  std::string source = "own wording";  // or the file
  std::string hash = {};               // SHA-256 of that file, lower-case hex
};

/// Wordings for the calls of V3, V3.1, V3.2 and V4. `name` is a value of --chat-encoding.
ChatTexts OwnChatTexts(std::string_view name);

/// DIR/chat_texts.json (keys as above, absent ones in our own wording), else the constants of
/// DIR/encoding/encoding_dsv32.py or encoding_dsv4.py as the model repositories have them, else our
/// own wording. kBadTokenizer, one line, for a file that is there and cannot be used.
absl::StatusOr<ChatTexts> LoadChatTexts(const std::string& directory, std::string_view name);

/// The literal of `NAME = …` at the start of a line of Python source: one or more string literals,
/// maybe in parentheses. Empty if there is none. Never aborts on any bytes.
std::string PythonStringConstant(std::string_view source, std::string_view name);

}  // namespace expertmesh::model

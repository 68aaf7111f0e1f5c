// `expertmesh tokenizer encode|decode|chat`.
#pragma once

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "cli/model_commands.h"

namespace expertmesh::cli {

struct EncodeOptions {
  std::string model;               // directory with tokenizer.json
  std::string input = "-";         // file of lines; "-" is standard input
  std::vector<std::string> texts;  // if any, instead of input
  bool json = false;               // a line is a JSON string, an answer a JSON list
  bool special = false;            // names of added tokens become those tokens
  bool timing = false;             // seconds spent encoding, to err
};
/// One line of ids for each text.
absl::Status EncodeTexts(const EncodeOptions& options, const Output& output);

struct DecodeOptions {
  std::string model;
  std::string input = "-";
  std::vector<uint32_t> ids;  // if any, instead of input
  bool json = false;          // a line is a JSON list, an answer a JSON string
  bool skip_special = false;
};
/// One text for each line of ids.
absl::Status DecodeIds(const DecodeOptions& options, const Output& output);

struct ChatPromptOptions {
  std::string model;
  std::string input = "-";        // file of lines; "-" is standard input
  std::string encoding = "auto";  // --chat-encoding
  bool ids = false;               // a JSON list of ids instead of a JSON string
};
/// One prompt for each line, a JSON list of messages or an object with "messages" and options.
absl::Status PrintChatPrompts(const ChatPromptOptions& options, const Output& output);

}  // namespace expertmesh::cli

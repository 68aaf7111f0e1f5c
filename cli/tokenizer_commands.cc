#include "cli/tokenizer_commands.h"

#include <boost/json/parse.hpp>
#include <boost/json/serialize.hpp>
#include <chrono>
#include <fstream>
#include <functional>
#include <iostream>
#include <memory>
#include <optional>
#include <ostream>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "model/config.h"
#include "model/tokenizer/chat_encoding.h"
#include "model/tokenizer/chat_json.h"
#include "model/tokenizer/python_json.h"
#include "model/tokenizer/tokenizer.h"
#include "services/base/status.h"

namespace expertmesh::cli {
namespace {

namespace json = boost::json;

absl::Status Bad(const std::string& what) {
  return base::Error(base::Reason::kInvalidArgument, what);
}

absl::Status ForEachLine(const std::string& input,
                         const std::function<absl::Status(const std::string&)>& take) {
  std::ifstream file;
  if (input != "-") file.open(input, std::ios::binary);
  if (!file) return Bad(absl::StrCat(input, ": cannot read the file"));
  std::istream& in = input == "-" ? std::cin : file;
  std::string line;
  for (size_t number = 1; std::getline(in, line); ++number) {
    const absl::Status status = take(line);
    if (!status.ok()) return base::Annotate(status, absl::StrCat("line ", number, ": "));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::string> JsonString(const std::string& line) {
  boost::system::error_code error;
  const json::value value = json::parse(json::string_view(line.data(), line.size()), error);
  if (error || !value.is_string()) return Bad("not a JSON string");
  return std::string(value.get_string().data(), value.get_string().size());
}

absl::StatusOr<std::vector<uint32_t>> JsonIds(const std::string& line) {
  boost::system::error_code error;
  const json::value value = json::parse(json::string_view(line.data(), line.size()), error);
  if (error || !value.is_array()) return Bad("not a JSON list of ids");
  std::vector<uint32_t> ids;
  for (const json::value& id : value.get_array()) {
    const int64_t* number = id.if_int64();
    if (number == nullptr || *number < 0 || *number > UINT32_MAX) {
      return Bad(absl::StrCat(json::serialize(id), " is not a token id"));
    }
    ids.push_back(static_cast<uint32_t>(*number));
  }
  return ids;
}

absl::StatusOr<std::vector<uint32_t>> PlainIds(const std::string& line) {
  std::vector<uint32_t> ids;
  for (const absl::string_view word :
       absl::StrSplit(line, absl::ByAnyChar(" \t,\r"), absl::SkipEmpty())) {
    uint32_t id = 0;
    if (!absl::SimpleAtoi(word, &id)) {
      return Bad(absl::StrCat("\"", word.substr(0, 40), "\" is not a token id"));
    }
    ids.push_back(id);
  }
  return ids;
}

// A list of messages, or an object with it and what ChatOptions calls the rest.
absl::StatusOr<std::vector<model::ChatMessage>> Conversation(const std::string& line,
                                                             model::ChatOptions& options) {
  const std::optional<json::value> value = model::ParseJson(line);
  if (!value.has_value()) return Bad("not JSON");
  if (!value->is_object()) return model::ChatMessagesFromJson(*value);
  const json::value* messages = nullptr;
  for (const json::key_value_pair& entry : value->get_object()) {
    const std::pair<json::string_view, bool*> flags[] = {
        {"thinking", &options.thinking},
        {"add_generation_prompt", &options.add_generation_prompt},
        {"continue_final", &options.continue_final},
        {"drop_thinking", &options.drop_thinking}};
    bool taken = false;
    for (const auto& [name, flag] : flags) {
      if (entry.key() != name || !entry.value().is_bool()) continue;
      *flag = entry.value().get_bool();
      taken = true;
    }
    if (entry.key() == "reasoning_effort" && entry.value().is_string()) {
      const json::string& effort = entry.value().get_string();
      options.reasoning_effort = std::string(effort.data(), effort.size());
      taken = true;
    }
    if (entry.key() == "messages") {
      messages = &entry.value();
      taken = true;
    }
    if (!taken) return Bad(absl::StrCat("\"", std::string(entry.key()), "\" is no option here"));
  }
  if (messages == nullptr) return Bad("there are no messages");
  return model::ChatMessagesFromJson(*messages);
}

// What one run of encode adds up.
struct Totals {
  std::chrono::steady_clock::duration spent{};
  uint64_t bytes = 0;
  uint64_t tokens = 0;
};

absl::Status EncodeOne(const model::Tokenizer& tokenizer, const EncodeOptions& options,
                       const std::string& text, Totals& totals, std::ostream& out) {
  const auto start = std::chrono::steady_clock::now();
  absl::StatusOr<std::vector<uint32_t>> ids = tokenizer.Encode(text, options.special);
  totals.spent += std::chrono::steady_clock::now() - start;
  if (!ids.ok()) return ids.status();
  totals.bytes += text.size();
  totals.tokens += ids->size();
  if (options.json) {
    out << '[' << absl::StrJoin(*ids, ",") << "]\n";
  } else {
    out << absl::StrJoin(*ids, " ") << '\n';
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status EncodeTexts(const EncodeOptions& options, const Output& output) {
  EM_ASSIGN_OR_RETURN(const auto tokenizer, model::Tokenizer::Load(options.model));
  Totals totals;
  for (const std::string& text : options.texts) {
    EM_RETURN_IF_ERROR(EncodeOne(*tokenizer, options, text, totals, output.out));
  }
  if (options.texts.empty()) {
    EM_RETURN_IF_ERROR(ForEachLine(options.input, [&](const std::string& line) -> absl::Status {
      if (!options.json) return EncodeOne(*tokenizer, options, line, totals, output.out);
      EM_ASSIGN_OR_RETURN(const std::string text, JsonString(line));
      return EncodeOne(*tokenizer, options, text, totals, output.out);
    }));
  }
  output.out << std::flush;
  if (options.timing) {
    const double seconds = std::chrono::duration<double>(totals.spent).count();
    output.err << absl::StrFormat("encoded %d bytes into %d tokens in %.6f s\n", totals.bytes,
                                  totals.tokens, seconds);
  }
  return absl::OkStatus();
}

absl::Status DecodeIds(const DecodeOptions& options, const Output& output) {
  EM_ASSIGN_OR_RETURN(const auto tokenizer, model::Tokenizer::Load(options.model));
  const auto decode = [&](const std::vector<uint32_t>& ids) {
    const std::string text = tokenizer->Decode(ids, options.skip_special);
    output.out << (options.json ? json::serialize(json::value(text)) : text) << '\n';
  };
  if (!options.ids.empty()) {
    decode(options.ids);
  } else {
    EM_RETURN_IF_ERROR(ForEachLine(options.input, [&](const std::string& line) -> absl::Status {
      EM_ASSIGN_OR_RETURN(const std::vector<uint32_t> ids,
                          options.json ? JsonIds(line) : PlainIds(line));
      decode(ids);
      return absl::OkStatus();
    }));
  }
  output.out << std::flush;
  return absl::OkStatus();
}

absl::Status PrintChatPrompts(const ChatPromptOptions& options, const Output& output) {
  EM_ASSIGN_OR_RETURN(const auto tokenizer, model::Tokenizer::Load(options.model));
  model::ChatFamily family{.chat_template = model::LoadChatTemplate(options.model)};
  if (options.encoding == "auto") {
    EM_ASSIGN_OR_RETURN(const model::Config config, model::LoadConfig(options.model));
    family.model_type = config.model_type;
  }
  EM_ASSIGN_OR_RETURN(const model::ChatEncoding encoding,
                      model::ChatEncodingFromFlag(options.encoding, family, *tokenizer));
  EM_ASSIGN_OR_RETURN(const model::ChatTexts texts,
                      model::LoadChatTexts(options.model, model::ChatEncodingName(encoding)));
  return ForEachLine(options.input, [&](const std::string& line) -> absl::Status {
    model::ChatOptions chat{.texts = &texts};
    EM_ASSIGN_OR_RETURN(const std::vector<model::ChatMessage> messages, Conversation(line, chat));
    EM_ASSIGN_OR_RETURN(const std::vector<uint32_t> ids,
                        model::EncodeChat(*tokenizer, encoding, messages, chat));
    if (options.ids) {
      output.out << '[' << absl::StrJoin(ids, ",") << "]\n";
    } else {
      output.out << json::serialize(json::value(tokenizer->Decode(ids, false))) << '\n';
    }
    return absl::OkStatus();
  });
}

}  // namespace expertmesh::cli

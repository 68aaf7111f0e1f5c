#include "model/tokenizer/chat_texts.h"

#include <boost/json/object.hpp>
#include <filesystem>
#include <fstream>
#include <optional>
#include <sstream>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "model/tokenizer/chat_encoders.h"
#include "model/tokenizer/python_json.h"
#include "model/tokenizer/special_tokens.h"
#include "model/tokenizer/tokenizer_spec.h"
#include "services/base/hash.h"
#include "services/base/status.h"

namespace expertmesh::model {
namespace {

namespace json = boost::json;

constexpr uintmax_t kFileBytesMax = 4u << 20;

// What a call looks like, for the model to imitate.
std::string CallForm(std::string_view name) {
  if (name == "v3" || name == "r1") {
    return "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>NAME\n```json\n"
           "ARGUMENTS\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>";
  }
  if (name == "v3.1") {
    return "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>NAME<｜tool▁sep｜>ARGUMENTS"
           "<｜tool▁call▁end｜><｜tool▁calls▁end｜>";
  }
  const std::string block = name == "v4" ? "tool_calls" : "function_calls";
  return absl::StrCat("<｜DSML｜", block,
                      ">\n<｜DSML｜invoke name=\"NAME\">\n"
                      "<｜DSML｜parameter name=\"KEY\" string=\"true|false\">VALUE"
                      "</｜DSML｜parameter>\n</｜DSML｜invoke>\n</｜DSML｜",
                      block, ">");
}

std::optional<std::string> ReadFile(const std::filesystem::path& path) {
  std::error_code error;
  const uintmax_t size = std::filesystem::file_size(path, error);
  if (error || size > kFileBytesMax) return std::nullopt;
  std::ifstream file(path, std::ios::binary);
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

std::string HashOf(std::string_view text) {
  base::Sha256 hash;
  hash.Update(text);
  return base::Hex(hash.Finish());
}

absl::Status TakeJson(const std::string& text, ChatTexts& texts) {
  const std::optional<json::value> value = ParseJson(text);
  if (!value.has_value() || !value->is_object()) return BadTokenizer("is not a JSON object");
  const std::pair<std::string_view, std::string*> fields[] = {
      {"tools", &texts.tools},
      {"response_format", &texts.response_format},
      {"developer", &texts.developer},
      {"reasoning_effort_high", &texts.effort_high},
      {"reasoning_effort_max", &texts.effort_max}};
  for (const json::key_value_pair& entry : value->get_object()) {
    const std::string_view key(entry.key().data(), entry.key().size());
    std::string* field = nullptr;
    for (const auto& [name, target] : fields) {
      if (name == key) field = target;
    }
    if (field == nullptr || !entry.value().is_string()) {
      return BadTokenizer(absl::StrCat(ShowToken(key),
                                       " is not a text of: tools, response_format, "
                                       "developer, reasoning_effort_high, reasoning_effort_max"));
    }
    const json::string& words = entry.value().get_string();
    *field = std::string(words.data(), words.size());
  }
  return absl::OkStatus();
}

// One literal: '…', "…", or either with three quotes. Escapes of plain strings; prefixes are not
// read.
class PythonLiteral {
 public:
  explicit PythonLiteral(std::string_view source) : rest_(source) {}

  std::optional<std::string> Next() {
    const size_t begin = rest_.find_first_not_of(" \t\r\n(\\");
    if (begin == std::string_view::npos) return std::nullopt;
    const char quote = rest_[begin];
    if (quote != '"' && quote != '\'') return std::nullopt;
    rest_.remove_prefix(begin);
    const bool triple = rest_.starts_with(std::string(3, quote));
    const std::string end(triple ? 3 : 1, quote);
    rest_.remove_prefix(end.size());
    std::string text;
    while (!rest_.empty() && !rest_.starts_with(end)) {
      if (rest_[0] == '\\' && rest_.size() > 1) {
        text += Escape(rest_[1]);
        rest_.remove_prefix(2);
      } else {
        text.push_back(rest_[0]);
        rest_.remove_prefix(1);
      }
    }
    if (rest_.empty()) return std::nullopt;
    rest_.remove_prefix(end.size());
    return text;
  }

 private:
  static std::string Escape(char c) {
    switch (c) {
      case 'n':
        return "\n";
      case 't':
        return "\t";
      case 'r':
        return "\r";
      case '\n':
        return "";
      case '\\':
      case '"':
      case '\'':
        return std::string(1, c);
      default:
        return {'\\', c};
    }
  }

  std::string_view rest_;
};

// V3.2's encoder has the frame of a developer message in the middle of a function: the literal with
// {} that it adds to content_developer.
std::string DeveloperFrame(std::string_view source) {
  constexpr std::string_view kAdds = "content_developer +=";
  for (size_t at = source.find(kAdds); at != std::string_view::npos;
       at = source.find(kAdds, at + 1)) {
    const std::optional<std::string> text = PythonLiteral(source.substr(at + kAdds.size())).Next();
    if (text.has_value() && text->find("{}") != std::string::npos) {
      return absl::StrReplaceAll(*text, {{"{}", "{content}"}});
    }
  }
  return {};
}

// A constant that str.format fills: chat tokens take their marks, doubled braces become single.
std::string Formatted(std::string_view source, std::string_view name, std::string_view block) {
  return absl::StrReplaceAll(PythonStringConstant(source, name),
                             {{"{dsml_token}", "｜DSML｜"},
                              {"{thinking_start_token}", "<think>"},
                              {"{thinking_end_token}", "</think>"},
                              {"{tc_block_name}", absl::string_view(block.data(), block.size())},
                              {"{{", "{"},
                              {"}}", "}"}});
}

absl::Status TakeEncoder(const std::string& source, std::string_view name, ChatTexts& texts) {
  const bool v4 = name == "v4";
  texts.tools = Formatted(source, v4 ? "TOOLS_TEMPLATE" : "TOOLS_SYSTEM_TEMPLATE", "tool_calls");
  texts.response_format = Formatted(source, "response_format_template", "");
  if (texts.tools.find("{tool_schemas}") == std::string::npos ||
      texts.response_format.find("{schema}") == std::string::npos) {
    return BadTokenizer(absl::StrCat("has no ", v4 ? "TOOLS_TEMPLATE" : "TOOLS_SYSTEM_TEMPLATE",
                                     " and response_format_template that can be read; give the "
                                     "texts in chat_texts.json"));
  }
  if (!v4) {
    const std::string developer = DeveloperFrame(source);
    if (!developer.empty()) texts.developer = developer;
  } else {
    texts.effort_max = PythonStringConstant(source, "REASONING_EFFORT_MAX");
    texts.effort_high = PythonStringConstant(source, "REASONING_EFFORT_HIGH");
  }
  return absl::OkStatus();
}

}  // namespace

std::string PythonStringConstant(std::string_view source, std::string_view name) {
  for (size_t at = source.find(name); at != std::string_view::npos;
       at = source.find(name, at + 1)) {
    if (at > 0 && source[at - 1] != '\n') continue;
    const std::string_view rest = source.substr(at + name.size());
    const size_t equals = rest.find('=');
    if (equals == std::string_view::npos || rest.substr(0, equals).find('\n') < equals) continue;
    PythonLiteral literal(rest.substr(equals + 1));
    std::string text;
    // Literals follow each other inside parentheses only.
    const size_t value = rest.find_first_not_of(" \t", equals + 1);
    const bool many = value != std::string_view::npos && rest[value] == '(';
    while (const std::optional<std::string> piece = literal.Next()) {
      text += *piece;
      if (!many) break;
    }
    return text;
  }
  return {};
}

ChatTexts OwnChatTexts(std::string_view name) {
  ChatTexts texts;
  texts.tools = absl::StrCat(
      "## Tools\n\nThese functions can be called, one JSON schema a line:\n{tool_schemas}\n\n"
      "A call is written in this form, with several calls inside one block:\n",
      CallForm(name));
  texts.response_format =
      "## Response Format:\n\nThe answer is JSON that follows this schema:\n{schema}";
  texts.developer = "\n\n{content}";
  texts.effort_max = "Reasoning effort: the highest.\n\n";
  return texts;
}

const ChatTexts& TextsOf(const ChatOptions& options, ChatEncoding encoding) {
  if (options.texts != nullptr) return *options.texts;
  static const auto& own =
      *new std::array<ChatTexts, 5>{OwnChatTexts("v3"), OwnChatTexts("r1"), OwnChatTexts("v3.1"),
                                    OwnChatTexts("v3.2"), OwnChatTexts("v4")};
  return own[static_cast<size_t>(encoding) - static_cast<size_t>(ChatEncoding::kV3)];
}

absl::StatusOr<ChatTexts> LoadChatTexts(const std::string& directory, std::string_view name) {
  ChatTexts texts = OwnChatTexts(name);
  const std::filesystem::path folder(directory);
  const std::string encoder = name == "v4" ? "encoding_dsv4.py" : "encoding_dsv32.py";
  const bool dsml = name == "v4" || name == "v3.2";
  for (const std::filesystem::path& path :
       {folder / "chat_texts.json", folder / "encoding" / encoder}) {
    const bool is_json = path.extension() == ".json";
    if (!is_json && !dsml) break;
    const std::optional<std::string> text = ReadFile(path);
    if (!text.has_value()) continue;
    const absl::Status status = is_json ? TakeJson(*text, texts) : TakeEncoder(*text, name, texts);
    if (!status.ok()) return base::Annotate(status, path.string() + ": ");
    texts.source = path.string();
    texts.hash = HashOf(*text);
    break;
  }
  return texts;
}

}  // namespace expertmesh::model

#include "cli/eval/eval_input.h"

#include <unistd.h>

#include <boost/json/array.hpp>
#include <boost/json/object.hpp>
#include <boost/json/serialize.hpp>
#include <cstdio>
#include <fstream>
#include <utility>

#include "absl/strings/str_cat.h"
#include "model/config_json.h"
#include "services/base/status.h"

namespace expertmesh::cli {
namespace {

namespace json = boost::json;

absl::Status Bad(const std::string& what) {
  return base::Error(base::Reason::kInvalidArgument, what);
}

absl::StatusOr<json::object> ParseObject(std::string_view line) {
  if (line.size() > kEvalLineBytesMax) {
    return Bad(absl::StrCat("longer than ", kEvalLineBytesMax, " bytes"));
  }
  EM_ASSIGN_OR_RETURN(json::value value, model::ParseJson(line, base::Reason::kInvalidArgument));
  if (!value.is_object()) return Bad("not a JSON object");
  return std::move(value.get_object());
}

// The text under a key; numbers become their text. Empty if it is absent and need not be there.
absl::StatusOr<std::string> Text(const json::object& object, const char* key, bool needed) {
  const json::value* value = object.if_contains(key);
  if (value == nullptr || value->is_null()) {
    if (needed) return Bad(absl::StrCat("key \"", key, "\" is missing"));
    return std::string();
  }
  if (value->is_string())
    return std::string(value->get_string().data(), value->get_string().size());
  if (value->is_int64() || value->is_uint64()) return std::string(json::serialize(*value));
  return Bad(absl::StrCat("key \"", key, "\" must be a string"));
}

absl::StatusOr<bool> Flag(const json::object& object, const char* key) {
  const json::value* value = object.if_contains(key);
  if (value == nullptr || value->is_null()) return false;
  if (value->is_bool()) return value->get_bool();
  return Bad(absl::StrCat("key \"", key, "\" must be true or false"));
}

absl::StatusOr<std::vector<uint32_t>> Tokens(const json::object& object) {
  const std::string wanted =
      absl::StrCat("key \"tokens\" must be a list of 2 to ", kScoredTokensMax, " token ids");
  const json::value* value = object.if_contains("tokens");
  if (value == nullptr || !value->is_array()) return Bad(wanted);
  const json::array& list = value->get_array();
  if (list.size() < 2 || list.size() > kScoredTokensMax) return Bad(wanted);
  std::vector<uint32_t> tokens;
  for (const json::value& id : list) {
    if (!id.is_int64() || id.get_int64() < 0 || id.get_int64() > UINT32_MAX) return Bad(wanted);
    tokens.push_back(static_cast<uint32_t>(id.get_int64()));
  }
  return tokens;
}

absl::StatusOr<std::vector<double>> Weights(const json::object& object, size_t count) {
  const json::value* value = object.if_contains("weights");
  if (value == nullptr || value->is_null()) return std::vector<double>(count, 1.0);
  const std::string wanted =
      "key \"weights\" must be a list of a number from 0 to 1 for each token";
  if (!value->is_array() || value->get_array().size() != count) return Bad(wanted);
  std::vector<double> weights;
  for (const json::value& weight : value->get_array()) {
    const double number = weight.is_double()  ? weight.get_double()
                          : weight.is_int64() ? static_cast<double>(weight.get_int64())
                                              : -1.0;
    if (!(number >= 0.0 && number <= 1.0)) return Bad(wanted);
    weights.push_back(number);
  }
  return weights;
}

template <class T>
absl::StatusOr<std::vector<T>> ReadAll(const std::string& path,
                                       absl::StatusOr<T> (*parse)(std::string_view)) {
  std::vector<T> all;
  EM_RETURN_IF_ERROR(ReadLines(path, [&](const std::string& line) -> absl::Status {
    EM_ASSIGN_OR_RETURN(T one, parse(line));
    all.push_back(std::move(one));
    return absl::OkStatus();
  }));
  return all;
}

}  // namespace

absl::StatusOr<Question> ParseQuestion(std::string_view line) {
  EM_ASSIGN_OR_RETURN(const json::object object, ParseObject(line));
  Question question;
  EM_ASSIGN_OR_RETURN(question.prompt, Text(object, "prompt", true));
  EM_ASSIGN_OR_RETURN(question.answer, Text(object, "answer", true));
  EM_ASSIGN_OR_RETURN(question.entity, Text(object, "entity", false));
  EM_ASSIGN_OR_RETURN(question.relation, Text(object, "relation", false));
  EM_ASSIGN_OR_RETURN(question.phrasing, Text(object, "phrasing", false));
  EM_ASSIGN_OR_RETURN(question.held_out, Flag(object, "held_out"));
  return question;
}

absl::StatusOr<std::string> ParsePrompt(std::string_view line) {
  EM_ASSIGN_OR_RETURN(const json::object object, ParseObject(line));
  return Text(object, "prompt", true);
}

absl::StatusOr<ScoredText> ParseScoredText(std::string_view line) {
  EM_ASSIGN_OR_RETURN(const json::object object, ParseObject(line));
  ScoredText text;
  EM_ASSIGN_OR_RETURN(text.tokens, Tokens(object));
  EM_ASSIGN_OR_RETURN(text.weights, Weights(object, text.tokens.size()));
  return text;
}

absl::Status ReadLines(const std::string& path,
                       const std::function<absl::Status(const std::string&)>& take) {
  std::ifstream file(path, std::ios::binary);
  if (!file) return Bad(absl::StrCat(path, ": cannot read the file"));
  std::string line;
  size_t taken = 0;
  for (size_t number = 1; std::getline(file, line); ++number) {
    if (line.find_first_not_of(" \t\r") == std::string::npos) continue;
    const absl::Status status = take(line);
    if (!status.ok()) return base::Annotate(status, absl::StrCat(path, ": line ", number, ": "));
    ++taken;
  }
  if (file.bad()) return Bad(absl::StrCat(path, ": cannot be read to its end"));
  if (taken == 0) return Bad(absl::StrCat(path, ": has no lines"));
  return absl::OkStatus();
}

absl::StatusOr<std::vector<Question>> ReadQuestions(const std::string& path) {
  return ReadAll<Question>(path, ParseQuestion);
}

absl::StatusOr<std::vector<std::string>> ReadPrompts(const std::string& path) {
  return ReadAll<std::string>(path, ParsePrompt);
}

absl::StatusOr<std::vector<ScoredText>> ReadScoredTexts(const std::string& path) {
  return ReadAll<ScoredText>(path, ParseScoredText);
}

absl::Status WriteReport(const std::string& path, const std::string& text) {
  const std::string aside = absl::StrCat(path, ".", getpid(), ".tmp");
  std::ofstream file(aside, std::ios::binary | std::ios::trunc);
  file << text;
  file.close();
  if (file && std::rename(aside.c_str(), path.c_str()) == 0) return absl::OkStatus();
  std::remove(aside.c_str());
  return Bad(absl::StrCat(path, ": cannot be written"));
}

}  // namespace expertmesh::cli

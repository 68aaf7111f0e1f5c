#include "cli/tokenizer_commands.h"

#include <boost/json/parse.hpp>
#include <boost/json/serialize.hpp>
#include <chrono>
#include <fstream>
#include <functional>
#include <iostream>
#include <memory>
#include <ostream>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
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

}  // namespace expertmesh::cli

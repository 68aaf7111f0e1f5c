// Lines of the files that `expertmesh eval` reads: one JSON object a line.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace expertmesh::cli {

/// A question with the whole answer that is right.
struct Question {
  std::string prompt = {};
  std::string answer = {};
  std::string entity = {};    // whom it is about: "France"
  std::string relation = {};  // what is asked: "capital"
  std::string phrasing = {};  // which wording; a number becomes its text
  bool held_out = false;      // the wording was not trained on
};

/// Tokens to score, each with its predecessors before it.
struct ScoredText {
  std::vector<uint32_t> tokens = {};  // at least two
  std::vector<double> weights = {};   // [tokens], 0 to 1; that of the first counts for nothing
};

inline constexpr size_t kEvalLineBytesMax = size_t{16} << 20;
inline constexpr size_t kScoredTokensMax = size_t{1} << 20;

/// {"prompt", "answer"} and, if given, "entity", "relation", "phrasing", "held_out"; other keys are
/// ignored. kInvalidArgument naming the key. Never aborts on any bytes (fuzzed); so the next two.
absl::StatusOr<Question> ParseQuestion(std::string_view line);
/// {"prompt"}.
absl::StatusOr<std::string> ParsePrompt(std::string_view line);
/// {"tokens"} and, if given, "weights", all 1 without.
absl::StatusOr<ScoredText> ParseScoredText(std::string_view line);

/// Hands every line that is not empty to `take`; errors name file and line. An empty file is one.
absl::Status ReadLines(const std::string& path,
                       const std::function<absl::Status(const std::string&)>& take);

absl::StatusOr<std::vector<Question>> ReadQuestions(const std::string& path);
absl::StatusOr<std::vector<std::string>> ReadPrompts(const std::string& path);
absl::StatusOr<std::vector<ScoredText>> ReadScoredTexts(const std::string& path);

/// Writes a file whole: aside, then renamed. kInvalidArgument naming it.
absl::Status WriteReport(const std::string& path, const std::string& text);

}  // namespace expertmesh::cli

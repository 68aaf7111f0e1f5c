// Shares of right answers. Pure.
#pragma once

#include <boost/json/object.hpp>
#include <cstddef>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "cli/eval/eval_input.h"

namespace expertmesh::cli {

struct Share {
  size_t hits = 0;
  size_t asked = 0;

  void Count(bool hit) {
    hits += hit ? 1 : 0;
    ++asked;
  }
  double value() const {
    return asked == 0 ? 0.0 : static_cast<double>(hits) / static_cast<double>(asked);
  }
};

/// Trained and held-out wordings apart.
struct TwoShares {
  Share trained;
  Share held_out;
};

struct WrongAnswer {
  Question question;
  std::string said;
};

struct RecallTally {
  TwoShares all;
  std::map<std::string, TwoShares> relations;  // by name
  std::vector<WrongAnswer> wrong;              // the first ones
  Share unknown;                               // outside questions answered "I don't know…"
  std::vector<std::pair<std::string, std::string>> invented;  // outside question, answer; the first
};

/// How an answer begins that admits not to know.
inline constexpr std::string_view kUnknownPrefix = "I don't know";

/// `said` [questions]: right is what equals the whole answer, byte for byte. Keeps at most
/// `wrong_max` wrong ones.
void CountAnswers(std::span<const Question> questions, std::span<const std::string> said,
                  size_t wrong_max, RecallTally& tally);
/// `said` [prompts].
void CountOutside(std::span<const std::string> prompts, std::span<const std::string> said,
                  size_t wrong_max, RecallTally& tally);

boost::json::object ShareJson(const Share& share);
boost::json::object RecallJson(const RecallTally& tally);
std::string RecallText(const RecallTally& tally);

}  // namespace expertmesh::cli

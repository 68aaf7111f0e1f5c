#include "cli/eval/recall_tally.h"

#include <boost/json/array.hpp>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace expertmesh::cli {
namespace {

namespace json = boost::json;

json::object BothJson(const TwoShares& shares) {
  return {{"trained", ShareJson(shares.trained)}, {"held_out", ShareJson(shares.held_out)}};
}

std::string Cell(const Share& share) {
  if (share.asked == 0) return "-";
  return absl::StrFormat("%.2f %% of %d", 100 * share.value(), share.asked);
}

}  // namespace

void CountAnswers(std::span<const Question> questions, std::span<const std::string> said,
                  size_t wrong_max, RecallTally& tally) {
  for (size_t i = 0; i < questions.size(); ++i) {
    const Question& question = questions[i];
    const bool right = said[i] == question.answer;
    TwoShares& relation = tally.relations[question.relation];
    (question.held_out ? tally.all.held_out : tally.all.trained).Count(right);
    (question.held_out ? relation.held_out : relation.trained).Count(right);
    if (!right && tally.wrong.size() < wrong_max) tally.wrong.push_back({question, said[i]});
  }
}

void CountOutside(std::span<const std::string> prompts, std::span<const std::string> said,
                  size_t wrong_max, RecallTally& tally) {
  for (size_t i = 0; i < prompts.size(); ++i) {
    const bool unknown = said[i].starts_with(kUnknownPrefix);
    tally.unknown.Count(unknown);
    if (!unknown && tally.invented.size() < wrong_max) {
      tally.invented.emplace_back(prompts[i], said[i]);
    }
  }
}

json::object ShareJson(const Share& share) {
  return {{"share", share.value()}, {"hits", share.hits}, {"asked", share.asked}};
}

json::object RecallJson(const RecallTally& tally) {
  json::object relations;
  for (const auto& [name, shares] : tally.relations) relations[name] = BothJson(shares);
  json::array wrong;
  for (const WrongAnswer& one : tally.wrong) {
    wrong.push_back(json::object{{"prompt", one.question.prompt},
                                 {"answer", one.question.answer},
                                 {"said", one.said},
                                 {"held_out", one.question.held_out}});
  }
  json::array invented;
  for (const auto& [prompt, said] : tally.invented) {
    invented.push_back(json::object{{"prompt", prompt}, {"said", said}});
  }
  json::object out = BothJson(tally.all);
  out["relations"] = std::move(relations);
  out["wrong"] = std::move(wrong);
  out["outside_unknown"] = ShareJson(tally.unknown);
  out["invented"] = std::move(invented);
  return out;
}

std::string RecallText(const RecallTally& tally) {
  std::string text =
      absl::StrFormat("%-20s %-22s %s\n", "exact match", "trained wordings", "held-out wordings");
  for (const auto& [name, shares] : tally.relations) {
    absl::StrAppendFormat(&text, "%-20s %-22s %s\n", name.empty() ? "-" : name,
                          Cell(shares.trained), Cell(shares.held_out));
  }
  absl::StrAppendFormat(&text, "%-20s %-22s %s\n", "all", Cell(tally.all.trained),
                        Cell(tally.all.held_out));
  if (tally.unknown.asked > 0) {
    absl::StrAppendFormat(&text, "\noutside questions answered \"%s\": %s\n",
                          std::string(kUnknownPrefix), Cell(tally.unknown));
  }
  if (!tally.wrong.empty()) absl::StrAppend(&text, "\nwrong:\n");
  for (const WrongAnswer& one : tally.wrong) {
    absl::StrAppend(&text, "  ", one.question.prompt, "\n    said   ", one.said, "\n    right  ",
                    one.question.answer, "\n");
  }
  if (!tally.invented.empty()) absl::StrAppend(&text, "\ninvented:\n");
  for (const auto& [prompt, said] : tally.invented) {
    absl::StrAppend(&text, "  ", prompt, "\n    said   ", said, "\n");
  }
  return text;
}

}  // namespace expertmesh::cli

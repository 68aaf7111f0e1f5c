#include "cli/eval/edit_report.h"

#include <boost/json/array.hpp>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace expertmesh::cli {
namespace {

namespace json = boost::json;

constexpr size_t kVersionShown = 12;

std::string ShareLine(const char* what, const Share& share) {
  if (share.asked == 0) return absl::StrFormat("%-52s -\n", what);
  return absl::StrFormat("%-52s %6.2f %% (%d of %d)\n", what, 100 * share.value(), share.hits,
                         share.asked);
}

const char* YesNo(bool yes) { return yes ? "yes" : "NO"; }

}  // namespace

void CountEdit(const EditPlan& plan, const EditAnswers& answers, size_t wrong_max,
               EditReport& report) {
  const size_t edited = plan.edited.size();
  for (size_t i = 0; i < edited; ++i) {
    const EditedQuestion& question = plan.edited[i];
    report.right_before.Count(answers.before[i] == question.question.answer);
    if (!question.tells) continue;
    const bool right = answers.edited[i] == question.expected;
    report.exchanged.Count(right);
    if (right || report.wrong.size() >= wrong_max) continue;
    Question wanted = question.question;
    wanted.answer = question.expected;
    report.wrong.push_back({std::move(wanted), answers.edited[i]});
  }
  for (size_t i = edited; i < answers.before.size(); ++i) {
    report.stayed.Count(answers.edited[i] == answers.before[i]);
  }
  for (size_t i = 0; i < answers.rolled_back.size(); ++i) {
    report.restored.Count(answers.rolled_back[i] == answers.before[i]);
  }
  report.skipped = plan.skipped;
}

json::object EditJson(const EditReport& report) {
  json::object rows;
  for (const auto& [layer, count] : report.rows) rows[absl::StrCat(layer)] = count;
  json::array wrong;
  for (const WrongAnswer& one : report.wrong) {
    wrong.push_back(json::object{
        {"prompt", one.question.prompt}, {"expected", one.question.answer}, {"said", one.said}});
  }
  return {{"first", report.first},
          {"second", report.second},
          {"old_version", report.old_version},
          {"new_version", report.new_version},
          {"rows_by_layer", std::move(rows)},
          {"collisions", report.collisions},
          {"foreign_reads", report.foreign_reads},
          {"foreign_hits", report.foreign_hits},
          {"skipped", report.skipped},
          {"right_before", ShareJson(report.right_before)},
          {"exchanged", ShareJson(report.exchanged)},
          {"stayed", ShareJson(report.stayed)},
          {"restored", ShareJson(report.restored)},
          {"wrong", std::move(wrong)},
          {"lane", json::object{{"tokens", report.lane_tokens},
                                {"ran_across_publish", report.lane_ran_on},
                                {"equal_to_old_version", report.lane_equal},
                                {"new_version_differs", report.lane_differs}}}};
}

std::string EditText(const EditReport& report) {
  std::string text = absl::StrCat("exchanged  ", report.first, " and ", report.second, ", version ",
                                  report.old_version.substr(0, kVersionShown), " -> ",
                                  report.new_version.substr(0, kVersionShown), "\nrows      ");
  for (const auto& [layer, count] : report.rows) {
    absl::StrAppend(&text, " layer ", layer, ": ", count, ";");
  }
  absl::StrAppend(&text, " ", report.collisions, " pairs of n-grams left out for a collision\n");
  absl::StrAppendFormat(&text, "others     read %d of %d rows where something was exchanged\n\n",
                        report.foreign_hits, report.foreign_reads);
  absl::StrAppend(&text, ShareLine("about the two: right before", report.right_before),
                  ShareLine("about the two, where they differ: exchanged", report.exchanged),
                  ShareLine("about others: answer stayed", report.stayed),
                  ShareLine("all: as before after the roll-back", report.restored));
  if (report.skipped > 0)
    absl::StrAppend(&text, report.skipped, " questions about them left out\n");
  absl::StrAppend(&text, "\nlane of ", report.lane_tokens,
                  " tokens across the publish: still running after it ", YesNo(report.lane_ran_on),
                  ", equal to the old version bit for bit ", YesNo(report.lane_equal),
                  ", a run on the new version differs ", YesNo(report.lane_differs), "\n");
  if (!report.wrong.empty()) absl::StrAppend(&text, "\nnot exchanged:\n");
  for (const WrongAnswer& one : report.wrong) {
    absl::StrAppend(&text, "  ", one.question.prompt, "\n    said      ", one.said,
                    "\n    expected  ", one.question.answer, "\n");
  }
  return text;
}

}  // namespace expertmesh::cli

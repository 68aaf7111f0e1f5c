#include "cli/eval/edit_plan.h"

#include <algorithm>
#include <map>
#include <utility>

#include "absl/strings/str_cat.h"
#include "cli/eval/name_exchange.h"
#include "services/base/status.h"

namespace expertmesh::cli {
namespace {

absl::Status Bad(const std::string& what) {
  return base::Error(base::Reason::kInvalidArgument, what);
}

using Answers = std::map<std::string, std::string>;  // by relation

Answers AnswersAbout(std::span<const Question> questions, const std::string& entity) {
  Answers answers;
  for (const Question& question : questions) {
    if (question.entity == entity) answers.emplace(question.relation, question.answer);
  }
  return answers;
}

std::vector<Question> Thinned(std::vector<Question> questions, size_t most) {
  if (most == 0 || questions.size() <= most) return questions;
  std::vector<Question> kept;
  for (size_t i = 0; i < most; ++i) {
    kept.push_back(std::move(questions[i * questions.size() / most]));
  }
  return kept;
}

}  // namespace

absl::StatusOr<EditPlan> PlanEdit(std::span<const Question> questions, const std::string& first,
                                  const std::string& second, size_t others_max) {
  if (first == second) return Bad("the two entities are the same");
  const Answers of_first = AnswersAbout(questions, first);
  const Answers of_second = AnswersAbout(questions, second);
  for (const auto& [name, answers] : {std::pair(first, &of_first), std::pair(second, &of_second)}) {
    if (answers->empty()) return Bad(absl::StrCat("no question has the entity \"", name, "\""));
  }
  EditPlan plan;
  std::vector<Question> others;
  for (const Question& question : questions) {
    const bool about_first = question.entity == first;
    if (!about_first && question.entity != second) {
      const std::string text = absl::StrCat(question.prompt, " ", question.answer);
      if (!HasName(text, first) && !HasName(text, second)) others.push_back(question);
      continue;
    }
    const std::string& own = about_first ? first : second;
    const std::string& other = about_first ? second : first;
    const Answers& theirs = about_first ? of_second : of_first;
    const auto answer = theirs.find(question.relation);
    if (answer == theirs.end() || !HasName(question.prompt, own) ||
        !HasName(question.answer, own) || !HasName(answer->second, other)) {
      ++plan.skipped;
      continue;
    }
    EditedQuestion edited;
    edited.question = question;
    edited.swapped_prompt = ReplaceName(question.prompt, own, other);
    edited.swapped_answer = ReplaceName(question.answer, own, other);
    edited.expected = ReplaceName(answer->second, other, own);
    edited.tells = edited.expected != question.answer;
    plan.edited.push_back(std::move(edited));
  }
  plan.others = Thinned(std::move(others), others_max);
  if (std::none_of(plan.edited.begin(), plan.edited.end(),
                   [](const EditedQuestion& q) { return q.tells; })) {
    return Bad(absl::StrCat("\"", first, "\" and \"", second, "\" differ in no answer"));
  }
  return plan;
}

}  // namespace expertmesh::cli

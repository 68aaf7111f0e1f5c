// Which questions tell whether two entities have changed places, and what is then right. Pure.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "cli/eval/eval_input.h"

namespace expertmesh::cli {

/// A question about one of the two.
struct EditedQuestion {
  Question question = {};
  std::string swapped_prompt = {};  // the other's name in place of its own; so the next
  std::string swapped_answer = {};
  std::string expected = {};  // right after the exchange: its own name, the other's value
  bool tells = false;         // the two differ in this, so that an exchange can be seen
};

struct EditPlan {
  std::vector<EditedQuestion> edited = {};
  std::vector<Question> others = {};  // name neither of the two
  size_t skipped =
      0;  // about one of the two, but unnamed in prompt or answer, or asked of one only
};

/// Takes every question about the two, and of the others `others_max` at even distances (0: all).
/// kInvalidArgument if there are no questions about one of them, or none that tells.
absl::StatusOr<EditPlan> PlanEdit(std::span<const Question> questions, const std::string& first,
                                  const std::string& second, size_t others_max);

}  // namespace expertmesh::cli

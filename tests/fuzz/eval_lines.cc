// Lines and bodies that `expertmesh eval` reads: an error with a reason, or what the header
// promises.
#include "cli/eval/chat_answer.h"
#include "cli/eval/eval_input.h"
#include "services/base/status.h"
#include "tests/fuzz/fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace expertmesh;
  const std::string_view text = fuzz::Text(data, size);
  const auto question = cli::ParseQuestion(text);
  if (!question.ok()) {
    fuzz::Require(base::ReasonOf(question.status()) == base::Reason::kInvalidArgument, "reason");
  }
  cli::ParsePrompt(text).status().IgnoreError();
  const auto scored = cli::ParseScoredText(text);
  if (scored.ok()) {
    fuzz::Require(scored->tokens.size() >= 2, "two tokens");
    fuzz::Require(scored->tokens.size() == scored->weights.size(), "a weight for each");
    for (const double weight : scored->weights) fuzz::Require(weight >= 0 && weight <= 1, "weight");
  }
  cli::AnswerOfCompletion(text).status().IgnoreError();
  cli::OnlyModelOf(text).status().IgnoreError();
  cli::ErrorTextOf(text);
  return 0;
}

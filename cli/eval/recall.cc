#include <boost/json/serialize.hpp>
#include <ostream>

#include "cli/eval/chat_asker.h"
#include "cli/eval/recall_tally.h"
#include "cli/eval_commands.h"
#include "cli/stop_flag.h"
#include "services/base/status.h"

namespace expertmesh::cli {

absl::Status EvalRecall(const RecallOptions& options, const Output& output) {
  const StopFlag stop;
  EM_ASSIGN_OR_RETURN(const std::vector<Question> questions, ReadQuestions(options.questions));
  std::vector<std::string> outside;
  if (!options.outside.empty()) {
    EM_ASSIGN_OR_RETURN(outside, ReadPrompts(options.outside));
  }
  EM_ASSIGN_OR_RETURN(const ChatAsker asker, ChatAsker::Open(options.chat));
  std::vector<std::string> prompts;
  for (const Question& question : questions) prompts.push_back(question.prompt);
  RecallTally tally;
  EM_ASSIGN_OR_RETURN(const auto said, asker.Ask(prompts, "eval recall: questions", output.err));
  CountAnswers(questions, said, options.wrong, tally);
  if (!outside.empty()) {
    EM_ASSIGN_OR_RETURN(const auto unsure,
                        asker.Ask(outside, "eval recall: outside questions", output.err));
    CountOutside(outside, unsure, options.wrong, tally);
  }
  output.out << RecallText(tally);
  if (options.json.empty()) return absl::OkStatus();
  boost::json::object report = RecallJson(tally);
  report["model"] = asker.model();
  return WriteReport(options.json, std::string(boost::json::serialize(report)) + "\n");
}

}  // namespace expertmesh::cli

#include <boost/json/serialize.hpp>
#include <mutex>
#include <ostream>

#include "absl/strings/str_format.h"
#include "cli/eval/forced_run.h"
#include "cli/eval/text_score.h"
#include "cli/eval/work.h"
#include "cli/eval_commands.h"
#include "cli/stop_flag.h"
#include "services/base/status.h"

namespace expertmesh::cli {

absl::Status EvalPerplexity(const ScoreOptions& options, const Output& output) {
  const StopFlag stop;
  EM_ASSIGN_OR_RETURN(const std::vector<ScoredText> texts, ReadScoredTexts(options.texts));
  EM_ASSIGN_OR_RETURN(const auto server,
                      InferenceServer::Open(options.server, options.model, options.timeout_s));
  std::vector<TextScore> scores(texts.size());
  Tally tally(output.err, "eval perplexity: texts", texts.size());
  EM_RETURN_IF_ERROR(ForEachAtOnce(
      texts.size(), options.concurrency, [&](unsigned /*worker*/, size_t i) -> absl::Status {
        const ScoredText& text = texts[i];
        const absl::Status status =
            server->Score(text, [&](size_t index, std::span<const float> logits) {
              scores[i].Add(logits, text.tokens[index], text.weights[index]);
            });
        if (!status.ok()) return base::Annotate(status, absl::StrFormat("text %d: ", i + 1));
        tally.Done();
        return absl::OkStatus();
      }));
  TextScore all;  // in the order of the file, so that the sum is always the same
  for (const TextScore& score : scores) all.Add(score);
  output.out << absl::StrFormat(
      "server      %s\ntexts       %d, %d tokens with a weight, %.1f in all\n"
      "perplexity  %.5f\nmean NLL    %.6f\ntop-1       %.2f %%\n",
      server->Description(), texts.size(), all.tokens, all.weight, all.perplexity(), all.mean_nll(),
      100 * all.accuracy());
  if (options.json.empty()) return absl::OkStatus();
  boost::json::object report = ScoreJson(all);
  report["server"] = server->Description();
  report["texts"] = texts.size();
  return WriteReport(options.json, std::string(boost::json::serialize(report)) + "\n");
}

}  // namespace expertmesh::cli

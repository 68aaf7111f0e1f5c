#include <boost/json/serialize.hpp>
#include <ostream>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "cli/eval/forced_run.h"
#include "cli/eval/text_score.h"
#include "cli/eval/work.h"
#include "cli/eval_commands.h"
#include "cli/stop_flag.h"
#include "services/base/status.h"

namespace expertmesh::cli {
namespace {

struct Pair {
  TextScore server;
  TextScore reference;
  Divergence divergence;
};

// One text on both. The reference's logits are kept for the time of one text: [tokens, vocab].
absl::Status Compare(const InferenceServer& server, const InferenceServer& reference,
                     const ScoredText& text, Pair& out) {
  std::vector<std::vector<float>> expected(text.tokens.size());
  EM_RETURN_IF_ERROR(reference.Score(text, [&](size_t index, std::span<const float> logits) {
    out.reference.Add(logits, text.tokens[index], text.weights[index]);
    expected[index].assign(logits.begin(), logits.end());
  }));
  bool same_size = true;
  EM_RETURN_IF_ERROR(server.Score(text, [&](size_t index, std::span<const float> logits) {
    out.server.Add(logits, text.tokens[index], text.weights[index]);
    if (expected[index].size() != logits.size()) {
      same_size = false;
      return;
    }
    out.divergence.Add(expected[index], logits, text.weights[index]);
  }));
  if (same_size) return absl::OkStatus();
  return base::Error(base::Reason::kInvalidArgument,
                     absl::StrCat(server.address(), " and ", reference.address(),
                                  " serve vocabularies of different sizes"));
}

std::string Table(const Pair& all, const InferenceServer& server,
                  const InferenceServer& reference) {
  const Divergence& d = all.divergence;
  return absl::StrFormat(
      "server      %s at %s\nreference   %s at %s\n\n"
      "%-12s %14s %14s\n%-12s %14.5f %14.5f\n%-12s %14.6f %14.6f\n%-12s %12.2f %% %12.2f %%\n\n"
      "perplexity ratio         %.6f\nmean KL(reference||server) %.3e, largest %.3e\n"
      "same likeliest token     %.3f %%\nequal logits             %d of %d positions\n",
      server.Description(), server.address(), reference.Description(), reference.address(), "",
      "server", "reference", "perplexity", all.server.perplexity(), all.reference.perplexity(),
      "mean NLL", all.server.mean_nll(), all.reference.mean_nll(), "top-1",
      100 * all.server.accuracy(), 100 * all.reference.accuracy(),
      all.server.perplexity() / all.reference.perplexity(), d.mean_kl(), d.kl_max,
      100 * d.agreement(), d.equal, d.tokens);
}

}  // namespace

absl::Status EvalCompare(const ScoreOptions& options, const Output& output) {
  const StopFlag stop;
  EM_ASSIGN_OR_RETURN(const std::vector<ScoredText> texts, ReadScoredTexts(options.texts));
  EM_ASSIGN_OR_RETURN(const auto server,
                      InferenceServer::Open(options.server, options.model, options.timeout_s));
  EM_ASSIGN_OR_RETURN(const auto reference,
                      InferenceServer::Open(options.reference, options.model, options.timeout_s));
  std::vector<Pair> pairs(texts.size());
  Tally tally(output.err, "eval compare: texts", texts.size());
  EM_RETURN_IF_ERROR(ForEachAtOnce(
      texts.size(), options.concurrency, [&](unsigned /*worker*/, size_t i) -> absl::Status {
        const absl::Status status = Compare(*server, *reference, texts[i], pairs[i]);
        if (!status.ok()) return base::Annotate(status, absl::StrFormat("text %d: ", i + 1));
        tally.Done();
        return absl::OkStatus();
      }));
  Pair all;
  for (const Pair& pair : pairs) {
    all.server.Add(pair.server);
    all.reference.Add(pair.reference);
    all.divergence.Add(pair.divergence);
  }
  output.out << Table(all, *server, *reference);
  if (options.json.empty()) return absl::OkStatus();
  boost::json::object report = DivergenceJson(all.divergence);
  report["server"] = ScoreJson(all.server);
  report["reference"] = ScoreJson(all.reference);
  report["perplexity_ratio"] = all.server.perplexity() / all.reference.perplexity();
  report["texts"] = texts.size();
  report["server_name"] = server->Description();
  report["reference_name"] = reference->Description();
  return WriteReport(options.json, std::string(boost::json::serialize(report)) + "\n");
}

}  // namespace expertmesh::cli

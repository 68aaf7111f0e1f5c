#include "cli/eval_flags.h"

#include <CLI/CLI.hpp>

#include "cli/eval/work.h"
#include "services/lifecycle/process.h"

namespace expertmesh::cli {
namespace {

void AddJson(CLI::App& command, std::string& json) {
  command.add_option("--json", json, "File to write the report to, as one JSON object");
}

void AddChat(CLI::App& command, ChatAskOptions& chat) {
  command.add_option("--url", chat.url, "The gateway: http://HOST:PORT")->required();
  command.add_option("--served-model-name", chat.model, "Needed if several models are served");
  command.add_option("--max-tokens", chat.max_tokens, "Tokens of an answer at most")
      ->check(CLI::Range(1u, 1u << 20))
      ->capture_default_str();
  command.add_option("--concurrency", chat.concurrency, "Questions at once")
      ->check(CLI::Range(1u, kConcurrencyMax))
      ->capture_default_str();
  command.add_option("--timeout", chat.timeout_s, "Seconds that one answer may take")
      ->check(CLI::Range(1u, 86400u))
      ->capture_default_str();
}

void AddScore(CLI::App& command, ScoreOptions& score) {
  command
      .add_option("--server", score.server,
                  "Attention worker with --debug-api, or a gateway before such workers: host:port "
                  "or unix:/path")
      ->required();
  command
      .add_option("--texts", score.texts,
                  "File of lines {\"tokens\": [ids], \"weights\": [0 to 1 for each token]}")
      ->required();
  command.add_option("--served-model-name", score.model, "Needed if several models are served");
  command.add_option("--concurrency", score.concurrency, "Texts at once")
      ->check(CLI::Range(1u, kConcurrencyMax))
      ->capture_default_str();
  command.add_option("--timeout", score.timeout_s, "Seconds that one text may take")
      ->check(CLI::Range(1u, 86400u))
      ->capture_default_str();
  AddJson(command, score.json);
}

constexpr char kQuestionLines[] =
    "File of lines {\"prompt\", \"answer\", \"entity\", \"relation\", \"phrasing\", \"held_out\"}";

}  // namespace

void EvalFlags::AddRecall(CLI::App& eval, Command& command) {
  CLI::App* recall = eval.add_subcommand("recall", "Exact match of greedy answers, over HTTP");
  AddChat(*recall, recall_.chat);
  recall->add_option("--questions", recall_.questions, kQuestionLines)->required();
  recall->add_option("--outside", recall_.outside,
                     "File of lines {\"prompt\"} that nobody can answer: share of \"I don't "
                     "know\" instead of an invention");
  recall->add_option("--wrong", recall_.wrong, "Wrong answers to show")->capture_default_str();
  AddJson(*recall, recall_.json);
  recall->footer(
      "An answer is right if it is the whole expected text, byte for byte.\n"
      "Example:\n"
      "  expertmesh eval recall --url http://127.0.0.1:8080 --questions facts.jsonl \\\n"
      "    --outside outside.jsonl --json recall.json");
  recall->callback([&] { command = [this](const Output& o) { return EvalRecall(recall_, o); }; });
}

void EvalFlags::AddPerplexity(CLI::App& eval, Command& command) {
  CLI::App* perplexity =
      eval.add_subcommand("perplexity", "How well given tokens are foretold, teacher-forced");
  AddScore(*perplexity, perplexity_);
  perplexity->footer(
      "Under ./mesh up --debug-api the worker's address is\n"
      "unix:/tmp/expertmesh-UID-KEY/attention-0.sock (ls /tmp/expertmesh-*).\n"
      "Example:\n"
      "  expertmesh eval perplexity --server 127.0.0.1:7100 --texts texts.jsonl");
  perplexity->callback(
      [&] { command = [this](const Output& o) { return EvalPerplexity(perplexity_, o); }; });
}

void EvalFlags::AddCompare(CLI::App& eval, Command& command) {
  CLI::App* compare = eval.add_subcommand(
      "compare", "KL divergence, agreement and perplexity of a server from a reference");
  AddScore(*compare, compare_);
  compare->add_option("--reference", compare_.reference, "The other server, as --server")
      ->required();
  compare->footer(
      "Two meshes with the same vocabulary: bf16 beside exact-f32, int8 weights beside bf16,\n"
      "sparse beside dense attention (--override index_topk=null).\n"
      "Example:\n"
      "  ./mesh up --name f32 --profile exact-f32 --debug-api --detach\n"
      "  expertmesh eval compare --server 127.0.0.1:7100 --reference 127.0.0.1:7200 \\\n"
      "    --texts texts.jsonl");
  compare->callback(
      [&] { command = [this](const Output& o) { return EvalCompare(compare_, o); }; });
}

void EvalFlags::AddMemoryEdit(CLI::App& eval, Command& command) {
  CLI::App* edit = eval.add_subcommand(
      "memory-edit", "Exchange what the memory holds about two entities, and look at all answers");
  AddChat(*edit, edit_.chat);
  edit->add_option("--server", edit_.server,
                   "Attention worker with --debug-api, or a gateway before such workers")
      ->required();
  edit->add_option("--store", edit_.store, "The Engram store: host:port or unix:/path")->required();
  edit->add_option("--model", edit_.model, "Model directory: hash numbers, tokenizer")->required();
  edit->add_option("--questions", edit_.questions, kQuestionLines)->required();
  edit->add_option("--first", edit_.first, "Entity")->required();
  edit->add_option("--second", edit_.second, "Entity; its name has as many tokens")->required();
  edit->add_option("--others", edit_.others, "Questions about others to ask; 0: all")
      ->capture_default_str();
  edit->add_option("--lane-tokens", edit_.lane_tokens,
                   "Length of the lane that runs across the publish")
      ->check(CLI::Range(8u, 1u << 20))
      ->capture_default_str();
  edit->add_option("--chat-encoding", edit_.encoding, "As on the gateway")->capture_default_str();
  lifecycle::AddOverrideFlag(*edit, edit_.overrides);
  edit->add_flag("--keep", edit_.keep, "Leave the exchanged version published");
  AddJson(*edit, edit_.json);
  edit->footer(
      "Publishes in the store and rolls back, also when something fails.\n"
      "Example:\n"
      "  expertmesh eval memory-edit --url http://127.0.0.1:8080 --server 127.0.0.1:7100 \\\n"
      "    --store 127.0.0.1:7300 --model models/demo --questions facts.jsonl \\\n"
      "    --first France --second Brazil");
  edit->callback([&] { command = [this](const Output& o) { return EvalMemoryEdit(edit_, o); }; });
}

void EvalFlags::AddLoad(CLI::App& eval, Command& command) {
  CLI::App* load = eval.add_subcommand(
      "load", "How evenly the experts of each layer were used since the workers' start");
  load->add_option("--expert", load_.experts,
                   "Expert workers of every pool: host:port or unix:/path, comma-separated")
      ->delimiter(',')
      ->required();
  load->add_option("--timeout", load_.timeout_s, "Seconds that a call may take")
      ->check(CLI::Range(1u, 86400u))
      ->capture_default_str();
  AddJson(*load, load_.json);
  load->footer(
      "Example:\n"
      "  expertmesh eval load --expert 127.0.0.1:7201,127.0.0.1:7202");
  load->callback([&] { command = [this](const Output& o) { return EvalLoad(load_, o); }; });
}

void EvalFlags::Add(CLI::App& app, Command& command) {
  CLI::App* eval = app.add_subcommand(
      "eval", "What a served model knows and costs, measured through the running mesh");
  eval->require_subcommand(1);
  eval->footer("Examples: expertmesh eval recall --help, expertmesh eval memory-edit --help");
  AddRecall(*eval, command);
  AddPerplexity(*eval, command);
  AddCompare(*eval, command);
  AddMemoryEdit(*eval, command);
  AddLoad(*eval, command);
}

}  // namespace expertmesh::cli

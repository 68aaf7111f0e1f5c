#include "cli/engram_flags.h"

#include <CLI/CLI.hpp>

namespace expertmesh::cli {

void EngramFlags::AddStore(CLI::App& command) {
  command.add_option("--store", store_.store, "Address of the store: host:port or unix:/path")
      ->required();
  command.add_option("--model", store_.model, "Name of the model; needed if the store has several");
  command.add_option("--principal", store_.principal, "Who asks: for roles and the audit")
      ->capture_default_str();
  command.add_option("--timeout", store_.timeout_s, "Seconds that a call may take")
      ->check(CLI::Range(1u, 86400u))
      ->capture_default_str();
}

void EngramFlags::Add(CLI::App& app, std::function<absl::Status(const Output&)>& command) {
  CLI::App* engram =
      app.add_subcommand("engram", "Versions of the n-gram tables in a running Engram store");
  engram->require_subcommand(1);
  engram->footer(
      "A version is named by its content; its first digits are enough.\n"
      "Examples:\n"
      "  expertmesh engram list --store 127.0.0.1:7300 --drafts\n"
      "  expertmesh engram update --store 127.0.0.1:7300 --layer 1 --input rows.txt\n"
      "  expertmesh engram publish --store 127.0.0.1:7300 665cc199\n"
      "  expertmesh engram rollback --store 127.0.0.1:7300\n"
      "Under ./mesh up: --store unix:/tmp/expertmesh-UID-KEY/engram.sock (ls /tmp/expertmesh-*)");
  const auto add = [&](const char* name, const char* text, auto run) {
    CLI::App* sub = engram->add_subcommand(name, text);
    AddStore(*sub);
    sub->callback([&command, run] { command = run; });
    return sub;
  };
  CLI::App* list = add("list", "Versions, newest first",
                       [this](const Output& o) { return ListEngramVersions(store_, list_, o); });
  list->add_flag("--drafts", list_.drafts, "Also versions that are not published");

  CLI::App* update = add("update", "A draft with some rows of a layer replaced; prints its version",
                         [this](const Output& o) { return UpdateEngramRows(store_, update_, o); });
  update->add_option("--base", update_.base, "Version to start from; default: the current one");
  update->add_option("--layer", update_.layer, "Layer of the model, 0-based")->required();
  update
      ->add_option("--input", update_.input,
                   "File of lines: row id, then one number for each column; - is standard input")
      ->required();
  update->add_flag("--publish", update_.publish, "Make the draft the current version at once");

  CLI::App* publish = add("publish", "Make a version the current one", [this](const Output& o) {
    return PublishEngramVersion(store_, publish_, o);
  });
  publish->add_option("version", publish_.version, "The version")->required();

  CLI::App* rollback =
      add("rollback", "Make the version before the current one current again, or the one named",
          [this](const Output& o) { return RollBackEngram(store_, rollback_, o); });
  rollback->add_option("version", rollback_.version, "A version that was published");

  CLI::App* prune = add("prune", "Remove old versions; never one that a running answer reads",
                        [this](const Output& o) { return PruneEngramVersions(store_, prune_, o); });
  prune->add_option("--keep", prune_.keep, "Published versions of each model to keep")
      ->check(CLI::Range(1u, 1000u))
      ->capture_default_str();
  prune->add_flag("--drafts", prune_.drafts, "Also versions that are not published");
  prune->add_flag(
      "--force", prune_.force,
      "Also within ten minutes of the store's start, when it may not know who reads what");

  CLI::App* audit = add("audit", "What was done to the tables, or refused, newest first",
                        [this](const Output& o) { return ShowEngramAudit(store_, audit_, o); });
  audit->add_option("--limit", audit_.limit, "Lines at most")
      ->check(CLI::Range(1u, 10000u))
      ->capture_default_str();
}

}  // namespace expertmesh::cli

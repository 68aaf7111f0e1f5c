// Flags and help of `expertmesh eval`.
#pragma once

#include <functional>

#include "cli/eval_commands.h"

namespace CLI {
class App;
}

namespace expertmesh::cli {

/// Adds the commands; the one that is given puts itself into `command`. Holds what flags are read
/// into, so it must live until then.
class EvalFlags {
 public:
  using Command = std::function<absl::Status(const Output&)>;
  void Add(CLI::App& app, Command& command);

 private:
  void AddRecall(CLI::App& eval, Command& command);
  void AddPerplexity(CLI::App& eval, Command& command);
  void AddCompare(CLI::App& eval, Command& command);
  void AddMemoryEdit(CLI::App& eval, Command& command);
  void AddLoad(CLI::App& eval, Command& command);

  RecallOptions recall_;
  ScoreOptions perplexity_;
  ScoreOptions compare_;
  MemoryEditOptions edit_;
  LoadOptions load_;
};

}  // namespace expertmesh::cli

// Flags and help of `expertmesh engram`.
#pragma once

#include <functional>
#include <memory>

#include "cli/engram_commands.h"

namespace expertmesh::cli {

/// Adds the commands; the one that is given puts itself into `command`. Holds what flags are read
/// into, so it must live until then.
class EngramFlags {
 public:
  void Add(CLI::App& app, std::function<absl::Status(const Output&)>& command);

 private:
  void AddStore(CLI::App& command);

  StoreOptions store_;
  EngramListOptions list_;
  EngramUpdateOptions update_;
  EngramVersionOptions publish_;
  EngramVersionOptions rollback_;
  EngramPruneOptions prune_;
  EngramAuditOptions audit_;
};

}  // namespace expertmesh::cli

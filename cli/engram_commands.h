// `expertmesh engram list|update|publish|rollback|prune|audit`: versions of n-gram tables in a
// running store (docs/engram-store.md).
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "cli/model_commands.h"

namespace CLI {
class App;
}

namespace expertmesh::cli {

/// What all of them take.
struct StoreOptions {
  std::string store;                    // "host:port" or "unix:/path"
  std::string model;                    // "" = the only one there is
  std::string principal = "anonymous";  // who asks, for roles and the audit
  uint32_t timeout_s = 60;
};

struct EngramListOptions {
  bool drafts = false;
};
absl::Status ListEngramVersions(const StoreOptions& store, const EngramListOptions& options,
                                const Output& output);

struct EngramUpdateOptions {
  std::string base;  // version, or enough of it to be clear; "" = the current one
  uint32_t layer = 0;
  std::string input;  // lines "ROW V0 V1 …", one value for each column; "-" is standard input
  bool publish = false;
};
/// Encodes the values in the table's own type. Prints the draft.
absl::Status UpdateEngramRows(const StoreOptions& store, const EngramUpdateOptions& options,
                              const Output& output);

struct EngramVersionOptions {
  std::string version;  // or enough of it to be clear
};
absl::Status PublishEngramVersion(const StoreOptions& store, const EngramVersionOptions& options,
                                  const Output& output);
absl::Status RollBackEngram(const StoreOptions& store, const EngramVersionOptions& options,
                            const Output& output);

struct EngramPruneOptions {
  uint32_t keep = 3;
  bool drafts = false;
  bool force = false;
};
absl::Status PruneEngramVersions(const StoreOptions& store, const EngramPruneOptions& options,
                                 const Output& output);

struct EngramAuditOptions {
  uint32_t limit = 20;
};
absl::Status ShowEngramAudit(const StoreOptions& store, const EngramAuditOptions& options,
                             const Output& output);

}  // namespace expertmesh::cli

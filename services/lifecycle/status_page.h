// The JSON texts of a process: /statusz and the announce file. Pure functions.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "absl/time/time.h"
#include "services/lifecycle/process.h"

namespace expertmesh::lifecycle {

struct PeerEntry {
  PeerStatus status;
  absl::Time since;  // when status.state last changed
};

struct StatusSnapshot {
  std::string name = {};
  std::string role = {};
  uint64_t incarnation = 0;
  std::string not_ready_reason = {};  // empty: ready
  bool draining = false;
  absl::Time started = {};
  absl::Time now = {};
  std::vector<PeerEntry> peers = {};                               // sorted by (role, name)
  std::vector<std::pair<std::string, std::string>> sections = {};  // key, JSON text
};

/// A JSON object. Ids of 64 bits are hex strings, because JSON numbers are doubles to many readers;
/// a section that is no JSON shows up as {"error": …} under its key.
std::string StatusPage(const StatusSnapshot& snapshot);

/// The announce file: one JSON object, one line.
std::string AnnounceText(const StatusSnapshot& snapshot, const std::string& grpc_address,
                         const std::string& admin_address,
                         const std::map<std::string, std::string>& extra);

}  // namespace expertmesh::lifecycle

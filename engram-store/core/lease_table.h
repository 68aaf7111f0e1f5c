// Who needs which version, and until when (docs/engram-store.md §4). Pure, one owner.
#pragma once

#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "services/base/clock.h"

namespace expertmesh::engram_store {

inline constexpr base::Micros kLeaseMin = std::chrono::seconds(5);
inline constexpr base::Micros kLeaseMax = std::chrono::minutes(10);
inline constexpr base::Micros kLeaseDefault = std::chrono::seconds(30);

/// Versions are named by their key in the store, whatever that is.
class LeaseTable {
 public:
  /// Numbers begin at `first`: random, so that a lease of an earlier run is unknown in this one.
  explicit LeaseTable(uint64_t first) : next_(first) {}

  uint64_t Acquire(const std::string& version, base::Micros ttl, base::Instant now);
  /// False if there is no such lease, or it has ended.
  bool Renew(uint64_t lease, base::Instant now);
  void Release(uint64_t lease);

  /// Living leases on a version.
  uint32_t Count(const std::string& version, base::Instant now);
  /// Versions with a living lease.
  std::set<std::string> Leased(base::Instant now);
  size_t size(base::Instant now);

 private:
  struct Lease {
    std::string version;
    base::Micros ttl;
    base::Instant ends;
  };
  void DropEnded(base::Instant now);

  uint64_t next_;
  std::map<uint64_t, Lease> leases_;
  base::Instant next_end_ = base::kNever;  // nothing ends before
};

}  // namespace expertmesh::engram_store

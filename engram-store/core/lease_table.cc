#include "engram-store/core/lease_table.h"

#include <algorithm>

namespace expertmesh::engram_store {

void LeaseTable::DropEnded(base::Instant now) {
  if (now < next_end_) return;
  std::erase_if(leases_, [&](const auto& entry) { return entry.second.ends <= now; });
  next_end_ = base::kNever;
  for (const auto& [number, lease] : leases_) next_end_ = std::min(next_end_, lease.ends);
}

uint64_t LeaseTable::Acquire(const std::string& version, base::Micros ttl, base::Instant now) {
  DropEnded(now);
  const uint64_t number = next_++;
  leases_[number] = {version, ttl, now + ttl};
  next_end_ = std::min(next_end_, now + ttl);
  return number;
}

bool LeaseTable::Renew(uint64_t lease, base::Instant now) {
  DropEnded(now);
  const auto it = leases_.find(lease);
  if (it == leases_.end()) return false;
  it->second.ends = now + it->second.ttl;
  return true;
}

void LeaseTable::Release(uint64_t lease) { leases_.erase(lease); }

uint32_t LeaseTable::Count(const std::string& version, base::Instant now) {
  DropEnded(now);
  return static_cast<uint32_t>(
      std::count_if(leases_.begin(), leases_.end(),
                    [&](const auto& entry) { return entry.second.version == version; }));
}

std::set<std::string> LeaseTable::Leased(base::Instant now) {
  DropEnded(now);
  std::set<std::string> versions;
  for (const auto& [number, lease] : leases_) versions.insert(lease.version);
  return versions;
}

size_t LeaseTable::size(base::Instant now) {
  DropEnded(now);
  return leases_.size();
}

}  // namespace expertmesh::engram_store

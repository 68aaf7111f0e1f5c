// Which versions of the n-gram tables a store has, which is current, which may go
// (docs/engram-store.md §1, §4). Pure, one owner.
#pragma once

#include <cstdint>
#include <set>
#include <string>
#include <vector>

#include "engram-store/core/version_id.h"
#include "model/tables/table_shape.h"

namespace expertmesh::engram_store {

/// A version of one model's tables.
struct VersionRecord {
  std::string model = {};
  std::string revision = {};
  std::string version = {};     // content address, hex
  std::string base = {};        // version it was made from; "" for an import
  uint64_t publish_number = 0;  // order of publishing in this store; 0 = draft
  int64_t created_unix_ms = 0;
  TableShape shape = {};
  uint64_t root = 0;                   // number of the import it descends from
  std::vector<uint64_t> changes = {};  // newest first; the last is the root
  ContentSum::Bytes sum = {};

  bool published() const { return publish_number != 0; }
  /// Unique in a store.
  std::string key() const { return model + '\0' + revision + '\0' + version; }
  friend bool operator==(const VersionRecord&, const VersionRecord&) = default;
};

class VersionCatalogue {
 public:
  explicit VersionCatalogue(std::vector<VersionRecord> versions = {});

  /// A version of a model and revision ("" = any); "" is the current one, a draft only by name.
  /// Null if there is none. Stays valid until the next change.
  const VersionRecord* Find(const std::string& model, const std::string& revision,
                            const std::string& version) const;
  /// The version that was current before the current one; null if there was none.
  const VersionRecord* BeforeCurrent(const std::string& model, const std::string& revision) const;
  /// Newest first, drafts last; empty strings mean any model, any revision.
  std::vector<VersionRecord> List(const std::string& model, const std::string& revision) const;
  /// Published versions beyond the last `keep` of their model and revision, and drafts if asked
  /// for; never one whose key is in `leased`.
  std::vector<VersionRecord> Prunable(const std::string& model, const std::string& revision,
                                      size_t keep, bool drafts,
                                      const std::set<std::string>& leased) const;

  void Put(VersionRecord version);  // adds or replaces
  void Remove(const std::string& key);
  /// Larger than every publish number so far.
  uint64_t next_publish_number() const;
  /// Larger than every change so far.
  uint64_t next_change() const;
  size_t published() const;
  size_t size() const { return versions_.size(); }

 private:
  std::vector<VersionRecord> versions_;  // newest first, drafts last
};

}  // namespace expertmesh::engram_store

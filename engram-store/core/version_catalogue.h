// Which versions of the n-gram tables a store serves. Pure, one owner.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace expertmesh::engram_store {

/// A published version of one model's tables.
struct VersionRecord {
  std::string model = {};
  std::string revision = {};
  std::string version = {};  // content address
  uint64_t rows = 0;         // in all layers
  uint64_t sequence = 0;     // order of publishing in this store: later is larger
  friend bool operator==(const VersionRecord&, const VersionRecord&) = default;
};

class VersionCatalogue {
 public:
  explicit VersionCatalogue(std::vector<VersionRecord> versions = {});

  /// The version of a model and revision; "" is the newest. Null if there is none. Stays valid
  /// while the catalogue lives.
  const VersionRecord* Find(const std::string& model, const std::string& revision,
                            const std::string& version) const;
  /// Newest first; empty strings mean any model, any revision.
  std::vector<VersionRecord> List(const std::string& model, const std::string& revision) const;
  size_t size() const { return versions_.size(); }

 private:
  std::vector<VersionRecord> versions_;  // newest first
};

}  // namespace expertmesh::engram_store

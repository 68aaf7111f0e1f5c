#include "engram-store/core/version_catalogue.h"

#include <algorithm>
#include <utility>

namespace expertmesh::engram_store {
namespace {

bool Fits(const std::string& wanted, const std::string& have) {
  return wanted.empty() || wanted == have;
}

}  // namespace

VersionCatalogue::VersionCatalogue(std::vector<VersionRecord> versions)
    : versions_(std::move(versions)) {
  std::stable_sort(versions_.begin(), versions_.end(),
                   [](const auto& a, const auto& b) { return a.sequence > b.sequence; });
}

const VersionRecord* VersionCatalogue::Find(const std::string& model, const std::string& revision,
                                            const std::string& version) const {
  const auto it = std::find_if(versions_.begin(), versions_.end(), [&](const VersionRecord& v) {
    return v.model == model && Fits(revision, v.revision) && Fits(version, v.version);
  });
  return it == versions_.end() ? nullptr : &*it;
}

std::vector<VersionRecord> VersionCatalogue::List(const std::string& model,
                                                  const std::string& revision) const {
  std::vector<VersionRecord> list;
  std::copy_if(versions_.begin(), versions_.end(), std::back_inserter(list),
               [&](const auto& v) { return Fits(model, v.model) && Fits(revision, v.revision); });
  return list;
}

}  // namespace expertmesh::engram_store

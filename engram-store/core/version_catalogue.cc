#include "engram-store/core/version_catalogue.h"

#include <algorithm>
#include <map>
#include <utility>

namespace expertmesh::engram_store {
namespace {

bool Fits(const std::string& wanted, const std::string& have) {
  return wanted.empty() || wanted == have;
}

void Sort(std::vector<VersionRecord>& versions) {
  std::stable_sort(versions.begin(), versions.end(), [](const auto& a, const auto& b) {
    return a.publish_number > b.publish_number;
  });
}

}  // namespace

VersionCatalogue::VersionCatalogue(std::vector<VersionRecord> versions)
    : versions_(std::move(versions)) {
  Sort(versions_);
}

const VersionRecord* VersionCatalogue::Find(const std::string& model, const std::string& revision,
                                            const std::string& version) const {
  const auto it = std::find_if(versions_.begin(), versions_.end(), [&](const VersionRecord& v) {
    const bool fits = version.empty() ? v.published() : v.version == version;
    return fits && v.model == model && Fits(revision, v.revision);
  });
  return it == versions_.end() ? nullptr : &*it;
}

const VersionRecord* VersionCatalogue::BeforeCurrent(const std::string& model,
                                                     const std::string& revision) const {
  const VersionRecord* current = Find(model, revision, "");
  if (current == nullptr) return nullptr;
  const auto it = std::find_if(versions_.begin(), versions_.end(), [&](const VersionRecord& v) {
    return &v != current && v.published() && v.model == current->model &&
           v.revision == current->revision;
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

std::vector<VersionRecord> VersionCatalogue::Prunable(const std::string& model,
                                                      const std::string& revision, size_t keep,
                                                      bool drafts,
                                                      const std::set<std::string>& leased) const {
  std::vector<VersionRecord> gone;
  std::map<std::pair<std::string, std::string>, size_t> kept;
  for (const VersionRecord& v : versions_) {
    if (!Fits(model, v.model) || !Fits(revision, v.revision)) continue;
    if (v.published() && kept[{v.model, v.revision}]++ < keep) continue;
    if (!v.published() && !drafts) continue;
    if (!leased.contains(v.key())) gone.push_back(v);
  }
  return gone;
}

void VersionCatalogue::Put(VersionRecord version) {
  Remove(version.key());
  versions_.push_back(std::move(version));
  Sort(versions_);
}

void VersionCatalogue::Remove(const std::string& key) {
  std::erase_if(versions_, [&](const VersionRecord& v) { return v.key() == key; });
}

uint64_t VersionCatalogue::next_publish_number() const {
  return versions_.empty() ? 1 : versions_.front().publish_number + 1;
}

uint64_t VersionCatalogue::next_change() const {
  uint64_t last = 0;
  for (const VersionRecord& v : versions_) {
    for (const uint64_t change : v.changes) last = std::max(last, change);
  }
  return last + 1;
}

size_t VersionCatalogue::published() const {
  return static_cast<size_t>(std::count_if(versions_.begin(), versions_.end(),
                                           [](const VersionRecord& v) { return v.published(); }));
}

}  // namespace expertmesh::engram_store

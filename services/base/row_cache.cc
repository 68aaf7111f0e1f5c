#include "services/base/row_cache.h"

#include <algorithm>

namespace expertmesh::base {

const std::byte* RowCache::Find(uint64_t table, uint64_t row) {
  const auto it = places_.find({table, row});
  if (it == places_.end()) return nullptr;
  marked_[it->second] = 1;
  return bytes_.data() + it->second * row_bytes_;
}

size_t RowCache::TakePlace() {
  if (keys_.size() < rows_max_) {
    keys_.emplace_back();
    marked_.push_back(0);
    bytes_.resize(bytes_.size() + row_bytes_);
    return keys_.size() - 1;
  }
  while (marked_[hand_] != 0) {
    marked_[hand_] = 0;
    hand_ = (hand_ + 1) % rows_max_;
  }
  const size_t place = hand_;
  hand_ = (hand_ + 1) % rows_max_;
  places_.erase(keys_[place]);
  return place;
}

void RowCache::Put(uint64_t table, uint64_t row, const std::byte* bytes) {
  const Key key{table, row};
  if (rows_max_ == 0 || places_.contains(key)) return;
  const size_t place = TakePlace();
  keys_[place] = key;
  marked_[place] = 0;
  std::copy_n(bytes, row_bytes_, bytes_.data() + place * row_bytes_);
  places_.emplace(key, place);
}

}  // namespace expertmesh::base

// A bounded cache of rows of one width, keyed (table, row). Second chance (CLOCK): a hit marks a
// row, and a row goes when the hand finds it unmarked. Not thread-safe.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <unordered_map>
#include <vector>

namespace expertmesh::base {

class RowCache {
 public:
  /// Room for `rows_max` rows of row_bytes each, taken as they come; 0 rows keeps nothing.
  RowCache(size_t rows_max, size_t row_bytes) : rows_max_(rows_max), row_bytes_(row_bytes) {}

  /// The row's bytes, valid until the next Put; null if it is not there.
  const std::byte* Find(uint64_t table, uint64_t row);
  /// Takes a copy of row_bytes bytes. Does nothing if the row is there.
  void Put(uint64_t table, uint64_t row, const std::byte* bytes);

  size_t size() const { return places_.size(); }
  size_t row_bytes() const { return row_bytes_; }

 private:
  struct Key {
    uint64_t table = 0;
    uint64_t row = 0;
    friend bool operator==(const Key&, const Key&) = default;
  };
  struct KeyHash {
    size_t operator()(const Key& key) const {
      uint64_t mixed = (key.row + key.table * 0x9E3779B97F4A7C15u) * 0xBF58476D1CE4E5B9u;
      return mixed ^ (mixed >> 32);
    }
  };
  size_t TakePlace();

  const size_t rows_max_;
  const size_t row_bytes_;
  std::unordered_map<Key, size_t, KeyHash> places_;  // → index of keys_, marked_ and bytes_
  std::vector<Key> keys_;
  std::vector<uint8_t> marked_;
  std::vector<std::byte> bytes_;  // [keys_, row_bytes]
  size_t hand_ = 0;
};

}  // namespace expertmesh::base

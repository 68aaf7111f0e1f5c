// Learns byte-pair merges from weighted words. Offline work for preset_writer: exact integers and a
// total order, so that every machine learns the same merges.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace expertmesh::model {

struct WeightedWord {
  std::string bytes;
  uint64_t weight = 1;
};

/// Two neighbours become one symbol. Symbols 0–255 are the bytes; others are numbered as they
/// appear. Two merges may make the same symbol ("a"+"bc" and "ab"+"c").
struct Merge {
  uint32_t left = 0;
  uint32_t right = 0;
};

struct TrainedMerges {
  std::vector<Merge> merges;         // in the order in which they apply
  std::vector<std::string> symbols;  // bytes of each symbol; the first 256 are single bytes
};

/// The most frequent pair first, of equals the one with the lower symbols, until `new_symbols` were
/// made or every word is one symbol. Weights are at least 1.
TrainedMerges TrainMerges(const std::vector<WeightedWord>& words, size_t new_symbols);

}  // namespace expertmesh::model

#include "model/blocks/selection.h"

#include <algorithm>
#include <array>
#include <bit>

namespace expertmesh::model {
namespace {

constexpr int kBucketBits = 11;  // of a key: sign, exponent and two bits of the mantissa
constexpr size_t kBuckets = size_t{1} << kBucketBits;
constexpr uint32_t kInfinity = 0x7F800000;

// Ascending keys are descending scores; equal scores have equal keys, zeros of both signs too.
uint32_t KeyOf(float score) {
  const auto bits = std::bit_cast<uint32_t>(score + 0.0f);
  return (bits & 0x80000000u) != 0 ? bits : ~(bits | 0x80000000u);
}

bool IsNan(float score) { return (std::bit_cast<uint32_t>(score) & 0x7FFFFFFFu) > kInfinity; }

}  // namespace

bool SelectLargest(std::span<const float> scores, size_t top, std::vector<uint64_t>& candidates,
                   uint32_t* out) {
  // How many scores fall into each bucket; the last chosen one is in the bucket that reaches `top`.
  std::array<uint32_t, kBuckets> counts{};
  bool nan = false;
  for (const float score : scores) {
    nan |= IsNan(score);
    ++counts[KeyOf(score) >> (32 - kBucketBits)];
  }
  if (nan) return false;
  size_t bucket = 0;
  size_t before = 0;  // scores in lower buckets: all of them are chosen
  while (before + counts[bucket] < top) before += counts[bucket++];
  candidates.clear();
  for (size_t i = 0; i < scores.size(); ++i) {
    const uint32_t key = KeyOf(scores[i]);
    if (key >> (32 - kBucketBits) == bucket) candidates.push_back(uint64_t{key} << 32 | i);
  }
  // (key, place) is a total order, so the set does not depend on the algorithm.
  const auto last = candidates.begin() + static_cast<std::ptrdiff_t>(top - before - 1);
  std::nth_element(candidates.begin(), last, candidates.end());
  const uint64_t limit = *last;
  size_t chosen = 0;
  for (size_t i = 0; chosen < top; ++i) {
    if ((uint64_t{KeyOf(scores[i])} << 32 | i) <= limit) out[chosen++] = static_cast<uint32_t>(i);
  }
  return true;
}

}  // namespace expertmesh::model

#include "model/writer/engram_tables.h"

#include <algorithm>
#include <numeric>
#include <set>

#include "model/writer/numpy_random.h"

namespace expertmesh::model {
namespace {

constexpr uint64_t kSeedStep = 10007;  // between the seeds of neighbouring layers

bool IsPrime(uint64_t number) {
  if (number < 2 || (number % 2 == 0 && number != 2)) return false;
  for (uint64_t d = 3; d * d <= number; d += 2) {
    if (number % d == 0) return false;
  }
  return true;
}

}  // namespace

std::vector<std::vector<uint64_t>> EngramPrimes(const EngramConfig& engram) {
  std::set<uint64_t> used;
  std::vector<std::vector<uint64_t>> primes(engram.layer_ids.size());
  for (std::vector<uint64_t>& layer : primes) {
    for (uint32_t order = 2; order <= engram.max_ngram; ++order) {
      uint64_t candidate = engram.vocab_size - 1;
      for (uint32_t head = 0; head < engram.n_heads; ++head) {
        do {
          ++candidate;
        } while (used.contains(candidate) || !IsPrime(candidate));
        used.insert(candidate);
        layer.push_back(candidate);
      }
    }
  }
  return primes;
}

std::vector<uint64_t> EngramMultipliers(const EngramConfig& engram, uint32_t layer) {
  const uint64_t bound = std::max<uint64_t>(1, INT64_MAX / engram.num_classes / 2);
  NumpyRandom random(engram.seed + kSeedStep * layer);
  std::vector<uint64_t> multipliers;
  for (uint32_t i = 0; i < engram.max_ngram; ++i) {
    multipliers.push_back(2 * random.Below(bound) + 1);
  }
  return multipliers;
}

std::vector<uint32_t> EvenTokenClasses(uint32_t vocab_size, uint32_t num_classes) {
  std::vector<uint32_t> classes;
  for (uint64_t id = 0; id < vocab_size; ++id) {
    classes.push_back(static_cast<uint32_t>(id * num_classes / vocab_size));
  }
  return classes;
}

std::vector<uint64_t> EngramRowCounts(const EngramConfig& engram) {
  std::vector<uint64_t> counts;
  for (const std::vector<uint64_t>& primes : EngramPrimes(engram)) {
    counts.push_back(std::accumulate(primes.begin(), primes.end(), uint64_t{0}));
  }
  return counts;
}

}  // namespace expertmesh::model

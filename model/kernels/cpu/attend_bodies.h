// Attention of one row, written once over the sixteen-lane type F16: the lanes are sixteen heads,
// which share the entries that they attend to. Included by kernel_bodies.h, in an unnamed namespace
// as everything there.
#pragma once

#include <cstddef>
#include <cstdint>

#include "model/kernels/bf16.h"
#include "model/kernels/kernel_table.h"
#include "model/kernels/math.h"

namespace expertmesh::model {
namespace {

constexpr size_t kPartDims = 64;   // of an entry, widened at a time
constexpr size_t kPartsAhead = 2;  // fetched before they are wanted

// Elements [begin, begin + count) of an entry in f32.
inline void WidenPart(const AttendEntries& e, size_t key, size_t begin, size_t count, float* out) {
  if (e.dtype == Dtype::kF32) {
    const float* from = reinterpret_cast<const float*>(e.entries[key]) + begin;
    __builtin_memcpy(out, from, count * sizeof(float));
    return;
  }
  const auto* from = reinterpret_cast<const uint16_t*>(e.entries[key]) + begin;
  size_t i = 0;
  for (; count - i >= 16; i += 16) Store(out + i, Load(from + i));
  for (; i < count; ++i) out[i] = WidenBf16(from[i]);
}

// Fetches from `begin` on what a part has: of the same entry or, behind its end, of the one `step`
// later. g++ 12 drops calls of a function that does nothing else unless it is inlined at once.
EM_ALWAYS_INLINE void PrefetchPart(const AttendEntries& e, size_t key, size_t begin, size_t step) {
  if (begin >= e.width) {
    key += step;
    begin -= e.width;
    if (key >= e.count) return;
  }
  const size_t bytes = e.dtype == Dtype::kF32 ? sizeof(float) : sizeof(uint16_t);
  const std::byte* from = e.entries[key] + begin * bytes;
  for (size_t i = 0; i < kPartDims * bytes; i += 64) __builtin_prefetch(from + i);
}

// sums[n] goes on with Σ_k a[n·apart + k·step] · b[k], one chain in ascending k.
template <int N>
inline void Chains(const float* a, size_t apart, size_t step, size_t count, const float* b,
                   F16* sums) {
  F16 sum[N];
  for (int n = 0; n < N; ++n) sum[n] = sums[n];
  for (size_t k = 0; k < count; ++k) {
    const F16 lanes = Load(b + k * kHeadLanes);
#pragma GCC unroll 16
    for (int n = 0; n < N; ++n) {
      sum[n] = Fma(Broadcast(a[static_cast<size_t>(n) * apart + k * step]), lanes, sum[n]);
    }
  }
  for (int n = 0; n < N; ++n) sums[n] = sum[n];
}

// The same for two sets of lanes, which share what is broadcast.
template <int N>
inline void ChainPairs(const float* a, size_t apart, size_t step, size_t count, const float* b,
                       size_t set, F16 (*sums)[N]) {
  F16 first[N], second[N];
  for (int n = 0; n < N; ++n) first[n] = sums[0][n];
  for (int n = 0; n < N; ++n) second[n] = sums[1][n];
  for (size_t k = 0; k < count; ++k) {
    const F16 lanes = Load(b + k * kHeadLanes);
    const F16 others = Load(b + set + k * kHeadLanes);
#pragma GCC unroll 16
    for (int n = 0; n < N; ++n) {
      const F16 value = Broadcast(a[static_cast<size_t>(n) * apart + k * step]);
      first[n] = Fma(value, lanes, first[n]);
      second[n] = Fma(value, others, second[n]);
    }
  }
  for (int n = 0; n < N; ++n) sums[0][n] = first[n];
  for (int n = 0; n < N; ++n) sums[1][n] = second[n];
}

// Blocks of N keys from `key` on, then of fewer, for two sets.
template <int N>
inline void PairScoresFrom(const AttendEntries& e, size_t key, const float* queries, float scale,
                           float* scores) {
  for (; e.count - key >= size_t{N}; key += N) {
    alignas(64) float part[N][kPartDims];
    F16 sums[2][N];
    for (auto& set : sums) {
      for (F16& sum : set) sum = Zero();
    }
    for (size_t d = 0; d < e.width; d += kPartDims) {
      const size_t dims = e.width - d < kPartDims ? e.width - d : kPartDims;
      for (size_t n = 0; n < N; ++n) {
        WidenPart(e, key + n, d, dims, part[n]);
        PrefetchPart(e, key + n, d + kPartsAhead * kPartDims, N);
      }
      ChainPairs<N>(part[0], kPartDims, 1, dims, queries + d * kHeadLanes, e.width * kHeadLanes,
                    sums);
    }
    for (size_t set = 0; set < 2; ++set) {
      float* out = scores + (set * kTileKeys + key) * kHeadLanes;
      for (size_t n = 0; n < N; ++n) {
        Store(out + n * kHeadLanes, Mul(Broadcast(scale), sums[set][n]));
      }
    }
  }
  if constexpr (N > 1) PairScoresFrom<N / 2>(e, key, queries, scale, scores);
}

// Blocks of N keys from `key` on, then of fewer.
template <int N>
inline void ScoresFrom(const AttendEntries& e, size_t key, const float* queries, float scale,
                       float* scores) {
  for (; e.count - key >= size_t{N}; key += N) {
    alignas(64) float part[N][kPartDims];
    F16 sums[N];
    for (F16& sum : sums) sum = Zero();
    for (size_t d = 0; d < e.width; d += kPartDims) {
      const size_t dims = e.width - d < kPartDims ? e.width - d : kPartDims;
      for (size_t n = 0; n < N; ++n) {
        WidenPart(e, key + n, d, dims, part[n]);
        PrefetchPart(e, key + n, d + kPartsAhead * kPartDims, N);
      }
      Chains<N>(part[0], kPartDims, 1, dims, queries + d * kHeadLanes, sums);
    }
    for (size_t n = 0; n < N; ++n) {
      Store(scores + (key + n) * kHeadLanes, Mul(Broadcast(scale), sums[n]));
    }
  }
  if constexpr (N > 1) ScoresFrom<N / 2>(e, key, queries, scale, scores);
}

void AttendScores(const AttendEntries& e, size_t sets, const float* queries, float scale,
                  float* scores) {
  for (; sets >= 2; sets -= 2) {
    PairScoresFrom<kPairBlock>(e, 0, queries, scale, scores);
    queries += 2 * e.width * kHeadLanes;
    scores += 2 * kTileKeys * kHeadLanes;
  }
  if (sets == 1) ScoresFrom<kChainBlock>(e, 0, queries, scale, scores);
}

// The sums over keys have 16 strided partials and a fixed tree, in every lane.
void AttendWeights(size_t count, float* scores, float* maxima, float* sums, float* factors) {
  alignas(64) float largest[kHeadLanes];
  alignas(64) float partial[16][kHeadLanes] = {};
  for (size_t j = 0; j < kHeadLanes; ++j) largest[j] = maxima[j];
  for (size_t s = 0; s < count; ++s) {  // a NaN is never larger
    const float* row = scores + s * kHeadLanes;
    for (size_t j = 0; j < kHeadLanes; ++j) largest[j] = row[j] > largest[j] ? row[j] : largest[j];
  }
  for (size_t j = 0; j < kHeadLanes; ++j) factors[j] = Exp(maxima[j] - largest[j]);
  for (size_t s = 0; s < count; ++s) {
    float* row = scores + s * kHeadLanes;
    float* sum = partial[s % 16];
    for (size_t j = 0; j < kHeadLanes; ++j) {
      row[j] = Exp(row[j] - largest[j]);
      sum[j] = sum[j] + row[j];
    }
  }
  for (size_t half = 8; half >= 2; half /= 2) {  // the order of TreeOf16
    for (size_t i = 0; i < half; ++i) {
      for (size_t j = 0; j < kHeadLanes; ++j) {
        partial[i][j] = partial[i][j] + partial[i + half][j];
      }
    }
  }
  for (size_t j = 0; j < kHeadLanes; ++j) {
    sums[j] = sums[j] * factors[j] + (partial[0][j] + partial[1][j]);
    maxima[j] = largest[j];
  }
}

// Blocks of N ranks from `rank` on, then of fewer.
template <int N>
inline void ValuesFrom(const AttendEntries& e, const float* weights, const float* factors,
                       size_t rank, size_t end, float* context) {
  for (; end - rank >= size_t{N}; rank += N) {
    alignas(64) float part[kTileKeys][N];
    F16 sums[N];
    for (size_t s = 0; s < e.count; ++s) WidenPart(e, s, rank, N, part[s]);
    float* out = context + rank * kHeadLanes;
    for (size_t n = 0; n < N; ++n) {
      sums[n] = factors == nullptr ? Zero() : Mul(Load(out + n * kHeadLanes), Load(factors));
    }
    Chains<N>(part[0], 1, N, e.count, weights, sums);
    for (size_t n = 0; n < N; ++n) Store(out + n * kHeadLanes, sums[n]);
  }
  if constexpr (N > 1) ValuesFrom<N / 2>(e, weights, factors, rank, end, context);
}

// Two sets: sixteen ranks are widened, and summed N at a time.
template <int N>
inline size_t PairValues(const AttendEntries& e, const float* weights, const float* factors,
                         size_t rank, size_t end, size_t context_set, float* context) {
  constexpr size_t kRanks = 16;
  for (; end - rank >= kRanks; rank += kRanks) {
    alignas(64) float part[kTileKeys][kRanks];
    for (size_t s = 0; s < e.count; ++s) WidenPart(e, s, rank, kRanks, part[s]);
    for (size_t r = 0; r < kRanks; r += N) {
      F16 sums[2][N];
      for (size_t set = 0; set < 2; ++set) {
        const float* out = context + set * context_set + (rank + r) * kHeadLanes;
        for (size_t n = 0; n < N; ++n) {
          sums[set][n] = factors == nullptr
                             ? Zero()
                             : Mul(Load(out + n * kHeadLanes), Load(factors + set * kHeadLanes));
        }
      }
      ChainPairs<N>(part[0] + r, 1, kRanks, e.count, weights, kTileKeys * kHeadLanes, sums);
      for (size_t set = 0; set < 2; ++set) {
        float* out = context + set * context_set + (rank + r) * kHeadLanes;
        for (size_t n = 0; n < N; ++n) Store(out + n * kHeadLanes, sums[set][n]);
      }
    }
  }
  return rank;
}

void AttendValues(const AttendEntries& e, size_t sets, const float* weights, const float* factors,
                  size_t begin, size_t end, size_t context_set, float* context) {
  const auto one = [&](size_t rank) {
    ValuesFrom<kChainBlock>(e, weights, factors, rank, end, context);
    weights += kTileKeys * kHeadLanes;
    if (factors != nullptr) factors += kHeadLanes;
    context += context_set;
  };
  for (; sets >= 2; sets -= 2) {
    const size_t rank =
        PairValues<kPairBlock>(e, weights, factors, begin, end, context_set, context);
    one(rank);
    one(rank);
  }
  if (sets == 1) one(begin);
}

}  // namespace
}  // namespace expertmesh::model

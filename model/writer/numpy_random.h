// The part of NumPy's generator that the memory's multipliers are drawn with (docs/formats.md
// §6.2): SeedSequence, PCG64 and bounded integers. Same numbers as numpy.random.default_rng(seed).
#pragma once

#include <array>
#include <cstdint>

namespace expertmesh::model {

/// Not thread-safe.
class NumpyRandom {
 public:
  explicit NumpyRandom(uint64_t seed);

  uint64_t Next();
  /// What integers(0, bound, dtype=int64) gives; bound above 2^32.
  uint64_t Below(uint64_t bound);

 private:
  __extension__ using Wide = unsigned __int128;
  void Step();

  Wide state_ = 0;
  Wide increment_ = 0;
};

}  // namespace expertmesh::model

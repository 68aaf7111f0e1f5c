// Interleaved rotary positions (docs/model-family.md §4.4): pairs (2i, 2i+1) turn by
// position · theta^(−2i/dims). Angles in float64, cos and sin rounded to float32.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace expertmesh::model {

/// Immutable; any thread.
class Rope {
 public:
  Rope() = default;
  Rope(double theta, size_t dims);

  size_t dims() const { return 2 * frequencies_.size(); }
  /// cos and sin of one position: out [dims] = cos_0, sin_0, cos_1, sin_1, …
  void Turns(uint64_t position, float* out) const;
  /// Rotates x [dims] in place by the turns of its position.
  static void Apply(const float* turns, size_t dims, float* x);

 private:
  std::vector<double> frequencies_;  // [dims / 2], radians per position
};

}  // namespace expertmesh::model

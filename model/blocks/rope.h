// Interleaved rotary positions (docs/model-family.md §4.4): pairs (2i, 2i+1) turn by
// position · theta^(−2i/dims), stretched if the config says so (YaRN, docs/formats.md §1.4).
// Angles in float64, cos and sin rounded to float32.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "model/config.h"

namespace expertmesh::model {

/// Immutable; any thread.
class Rope {
 public:
  Rope() = default;
  Rope(double theta, size_t dims);
  /// As the config says: theta, qk_rope_head_dim and rope_scaling.
  explicit Rope(const Config& config);

  size_t dims() const { return 2 * frequencies_.size(); }
  /// cos and sin of one position: out [dims] = cos_0, sin_0, cos_1, sin_1, …
  void Turns(uint64_t position, float* out) const;
  /// Rotates x [dims] in place by the turns of its position.
  static void Apply(const float* turns, size_t dims, float* x);
  /// The same for pairs (i, i + dims/2): the indexer of V3.2 (docs/formats.md §2.3).
  static void ApplyHalfSplit(const float* turns, size_t dims, float* x);

 private:
  std::vector<double> frequencies_;  // [dims / 2], radians per position
  double magnitude_ = 1.0;           // of cos and sin: YaRN's attention factor
};

/// Channels of the rope between which YaRN goes over from unchanged to stretched frequencies.
struct YarnRange {
  double low = 0;
  double high = 0;
};
YarnRange YarnRampRange(const YarnScaling& yarn, double theta, size_t dims);

/// Scale of attention scores: (nope + rope)^-1/2, times m² under YaRN with mscale_all_dim
/// (docs/formats.md §1.3).
float AttentionScale(const Config& config);

}  // namespace expertmesh::model

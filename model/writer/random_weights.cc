#include "model/writer/random_weights.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <numbers>

#include "services/base/hash.h"
#include "services/base/random.h"

namespace expertmesh::model {
namespace {

// Our own logarithm and sines, to 1e-11: libm's differ between machines in the last bit, and the
// same seed must give the same bytes everywhere. No branches: they would be mispredicted every
// other time.

// ln((a + 0.5) / 2^32), below 0.
double LogUniform(uint32_t a) {
  constexpr uint64_t kRootHalf = std::bit_cast<uint64_t>(std::numbers::sqrt2 / 2);
  const auto odd = static_cast<double>(2 * uint64_t{a} + 1);  // exact; u = odd / 2^33
  const auto bits = std::bit_cast<uint64_t>(odd);
  const int64_t exponent = static_cast<int64_t>(bits - kRootHalf) >> 52;
  const auto mantissa =
      std::bit_cast<double>(bits - (static_cast<uint64_t>(exponent) << 52));  // [sqrt(½), sqrt(2))
  const double s = (mantissa - 1.0) / (mantissa + 1.0);                       // |s| < 0.172
  const double z = s * s;
  const double series =
      1.0 + z * (1.0 / 3 +
                 z * (1.0 / 5 + z * (1.0 / 7 + z * (1.0 / 9 + z * (1.0 / 11 + z * (1.0 / 13))))));
  return static_cast<double>(exponent - 33) * std::numbers::ln2 + 2.0 * s * series;
}

struct CosSin {
  double cos;
  double sin;
};

// Of the angle 2π (b + 0.5) / 2^32: the nearest quarter turn exactly, the rest by series.
CosSin CosSinUniform(uint32_t b) {
  constexpr double kStep = 2.0 * std::numbers::pi / 4294967296.0;
  const uint32_t quarter = (b + (1u << 29)) >> 30;
  const double x = (static_cast<int32_t>(b - (quarter << 30)) + 0.5) * kStep;  // |x| ≤ π/4
  const double z = x * x;
  double s = 1.0 / 362880 + z * (-1.0 / 39916800);
  s = x * (1.0 + z * (-1.0 / 6 + z * (1.0 / 120 + z * (-1.0 / 5040 + z * s))));
  double c = -1.0 / 3628800 + z * (1.0 / 479001600);
  c = 1.0 + z * (-1.0 / 2 + z * (1.0 / 24 + z * (-1.0 / 720 + z * (1.0 / 40320 + z * c))));
  const auto cos = std::bit_cast<uint64_t>(c);
  const auto sin = std::bit_cast<uint64_t>(s);
  const uint64_t swap = (cos ^ sin) & -uint64_t{quarter & 1};
  const uint64_t cos_sign = uint64_t{((quarter + 1) >> 1) & 1} << 63;
  const uint64_t sin_sign = uint64_t{quarter >> 1} << 63;
  return {std::bit_cast<double>(cos ^ swap ^ cos_sign),
          std::bit_cast<double>(sin ^ swap ^ sin_sign)};
}

// Two independent standard normals from 2 × 32 bits.
std::array<double, 2> BoxMuller(uint32_t a, uint32_t b) {
  const double radius = std::sqrt(-2.0 * LogUniform(a));
  const CosSin angle = CosSinUniform(b);
  return {radius * angle.cos, radius * angle.sin};
}

}  // namespace

Distribution DistributionOf(const TensorSpec& spec, WeightStyle style) {
  const bool flat = style == WeightStyle::kFlat;
  const auto ends = [&](std::string_view ending) { return spec.name.ends_with(ending); };
  if (ends("e_score_correction_bias") || ends("k_norm.bias")) return {0.0, flat ? 0.0 : 0.1};
  if (spec.part == "mhc" && ends("scale")) return {1.0, 0.0};
  if (spec.part == "mhc" && ends("base")) return {0.0, 0.5};
  if (ends("engram.q_weight") || ends("engram.k_weight")) return {1.0, flat ? 0.0 : 0.1};
  if (spec.shape.size() == 1) return {1.0, flat ? 0.0 : 0.1};  // every other vector is a norm
  if (flat) return {0.0, 0.02};
  if (spec.part == "embedding" || spec.part == "engram_tables") return {0.0, 1.0};
  return {0.0, 1.0 / std::sqrt(static_cast<double>(spec.shape[1]))};
}

void FillRandom(uint64_t seed, std::string_view tensor, Distribution distribution, uint64_t first,
                std::span<float> out) {
  if (distribution.scale == 0) {
    std::fill(out.begin(), out.end(), static_cast<float>(distribution.mean));
    return;
  }
  const uint64_t name = base::Hash64(tensor);
  const std::array<uint32_t, 2> key = {static_cast<uint32_t>(seed),
                                       static_cast<uint32_t>(seed >> 32)};
  for (size_t at = 0; at < out.size(); at += 4) {
    const uint64_t block = (first + at) / 4;
    const auto bits =
        base::Philox(key, {static_cast<uint32_t>(block), static_cast<uint32_t>(block >> 32),
                           static_cast<uint32_t>(name), static_cast<uint32_t>(name >> 32)});
    const auto low = BoxMuller(bits[0], bits[1]);
    const auto high = BoxMuller(bits[2], bits[3]);
    const std::array<double, 4> normal = {low[0], low[1], high[0], high[1]};
    for (size_t i = 0; i < 4 && at + i < out.size(); ++i) {
      out[at + i] = static_cast<float>(distribution.mean + distribution.scale * normal[i]);
    }
  }
}

}  // namespace expertmesh::model

#include "services/base/int8_row.h"

#include <algorithm>
#include <bit>
#include <limits>

namespace expertmesh::base {
namespace {

constexpr uint32_t kMagnitude = 0x7FFFFFFFu;
constexpr uint32_t kInfinity = 0x7F800000u;
constexpr float kTiny = 0x1p-100f;     // 127 / amax stays finite above
constexpr float kRounder = 0x1.8p23f;  // adding and taking it away rounds to nearest even

}  // namespace

float QuantiseInt8Row(std::span<const float> row, int8_t* codes) {
  // Magnitudes of floats are ordered as their bits are; NaN and infinity are the greatest.
  uint32_t greatest = 0;
  for (const float value : row) {
    greatest = std::max(greatest, std::bit_cast<uint32_t>(value) & kMagnitude);
  }
  const auto amax = std::bit_cast<float>(greatest);
  if (greatest >= kInfinity || amax < kTiny) {
    std::fill_n(codes, row.size(), int8_t{0});
    return greatest >= kInfinity ? std::numeric_limits<float>::quiet_NaN() : 0.0f;
  }
  const float inverse = 127.0f / amax;
  for (size_t i = 0; i < row.size(); ++i) {
    const float rounded = (row[i] * inverse + kRounder) - kRounder;
    codes[i] = static_cast<int8_t>(static_cast<int32_t>(rounded));
  }
  return amax / 127.0f;
}

}  // namespace expertmesh::base

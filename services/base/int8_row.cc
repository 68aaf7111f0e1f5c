#include "services/base/int8_row.h"

#include <algorithm>
#include <bit>
#include <limits>

namespace expertmesh::base {
namespace {

constexpr uint32_t kMagnitude = 0x7FFFFFFFu;
constexpr uint32_t kInfinity = 0x7F800000u;
constexpr float kTiny = 0x1p-100f;     // 127 / amax stays finite above
constexpr float kRounder = 0x1.8p23f;  // adding it rounds to nearest even, into the low bits
// Loops over a row run in blocks of so many elements, whose fixed length the compiler can put into
// vectors.
constexpr size_t kBlock = 64;

uint32_t Magnitude(float value) { return std::bit_cast<uint32_t>(value) & kMagnitude; }
int8_t Code(float value, float inverse) {
  return static_cast<int8_t>(std::bit_cast<uint32_t>(value * inverse + kRounder));
}

}  // namespace

float QuantiseInt8Row(std::span<const float> row, int8_t* codes) {
  // Magnitudes of floats are ordered as their bits are; NaN and infinity are the greatest.
  const size_t whole = row.size() / kBlock * kBlock;
  uint32_t lanes[kBlock] = {};
  for (size_t i = 0; i < whole; i += kBlock) {
    for (size_t j = 0; j < kBlock; ++j) lanes[j] = std::max(lanes[j], Magnitude(row[i + j]));
  }
  uint32_t greatest = *std::max_element(lanes, lanes + kBlock);
  for (size_t i = whole; i < row.size(); ++i) greatest = std::max(greatest, Magnitude(row[i]));
  const auto amax = std::bit_cast<float>(greatest);
  if (greatest >= kInfinity || amax < kTiny) {
    std::fill_n(codes, row.size(), int8_t{0});
    return greatest >= kInfinity ? std::numeric_limits<float>::quiet_NaN() : 0.0f;
  }
  const float inverse = 127.0f / amax;
  for (size_t i = 0; i < whole; i += kBlock) {
    for (size_t j = 0; j < kBlock; ++j) codes[i + j] = Code(row[i + j], inverse);
  }
  for (size_t i = whole; i < row.size(); ++i) codes[i] = Code(row[i], inverse);
  return amax / 127.0f;
}

}  // namespace expertmesh::base

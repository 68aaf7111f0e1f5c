#include "model/grammar/number_range.h"

#include <algorithm>

namespace expertmesh::model {
namespace {

using Phase = NumberPrefix::Phase;

constexpr int kDigitsMax = 18;

int64_t Power(int digits) {
  int64_t power = 1;
  for (int i = 0; i < digits; ++i) power *= 10;
  return power;
}

// Magnitudes of one sign: [low, high], empty if low > high.
struct Magnitudes {
  int64_t low;
  int64_t high;
};

Magnitudes MagnitudesOf(const NumberRange& range, bool negative) {
  if (!negative) return {std::max<int64_t>(range.low, 0), range.high};
  return {std::max<int64_t>(-range.high, 1), -range.low};  // -0 is not written
}

// Whether some x in [low, high] has x × unit within the magnitudes, and is a multiple.
bool Exists(const NumberRange& range, Magnitudes m, int64_t low, int64_t high, int64_t unit) {
  if (m.low > m.high) return false;
  low = std::max(low, (m.low + unit - 1) / unit);
  high = std::min(high, m.high / unit);
  if (low > high) return false;
  return range.multiple == 0 || high / range.multiple * range.multiple >= low;
}

// Whole parts in [low, high] that take `cost` bytes from here, with any fraction.
uint32_t ShortestWhole(const NumberRange& range, Magnitudes m, int64_t low, int64_t high,
                       uint32_t cost) {
  const int f = range.fraction_digits;
  if (Exists(range, m, low, high, Power(f))) return cost;
  for (int t = 1; t <= f; ++t) {
    if (low > NumberRange::kLimit / Power(t)) break;
    const int64_t top = std::min(high, NumberRange::kLimit / Power(t));
    const int64_t last = top * Power(t) + Power(t) - 1;
    if (Exists(range, m, low * Power(t), last, Power(f - t))) {
      return cost + 1 + static_cast<uint32_t>(t);
    }
  }
  return kForever;
}

uint32_t ShortestOfSign(const NumberRange& range, bool negative) {
  const Magnitudes m = MagnitudesOf(range, negative);
  uint32_t best = ShortestWhole(range, m, 0, 0, 1);
  for (int digits = 1; digits <= kDigitsMax; ++digits) {
    if (static_cast<uint32_t>(digits) >= best) break;
    best = std::min(best, ShortestWhole(range, m, Power(digits - 1), Power(digits) - 1,
                                        static_cast<uint32_t>(digits)));
  }
  return best;
}

uint32_t ShortestFromWhole(const NumberRange& range, const NumberPrefix& prefix) {
  const Magnitudes m = MagnitudesOf(range, prefix.negative);
  const auto value = static_cast<int64_t>(prefix.digits);
  uint32_t best = ShortestWhole(range, m, value, value, 0);
  if (value == 0) return best;  // no digit follows a leading zero
  for (int more = 1; more < kDigitsMax && value <= NumberRange::kLimit / Power(more); ++more) {
    if (static_cast<uint32_t>(more) >= best) break;
    best = std::min(
        best, ShortestWhole(range, m, value * Power(more), value * Power(more) + Power(more) - 1,
                            static_cast<uint32_t>(more)));
  }
  return best;
}

uint32_t ShortestFromFraction(const NumberRange& range, const NumberPrefix& prefix) {
  const Magnitudes m = MagnitudesOf(range, prefix.negative);
  const auto value = static_cast<int64_t>(prefix.digits);
  for (int total = std::max<int>(1, prefix.fraction); total <= range.fraction_digits; ++total) {
    const int more = total - prefix.fraction;
    if (value > NumberRange::kLimit / Power(more)) break;
    if (Exists(range, m, value * Power(more), value * Power(more) + Power(more) - 1,
               Power(range.fraction_digits - total))) {
      return static_cast<uint32_t>(more);
    }
  }
  return kForever;
}

}  // namespace

uint32_t ShortestRest(const NumberRange& range, const NumberPrefix& prefix) {
  switch (prefix.phase) {
    case Phase::kStart:
      return std::min(ShortestOfSign(range, false), SaturatingAdd(1, ShortestOfSign(range, true)));
    case Phase::kMinus:
      return ShortestOfSign(range, true);
    case Phase::kWhole:
      return ShortestFromWhole(range, prefix);
    case Phase::kPoint:
    case Phase::kFraction:
      return ShortestFromFraction(range, prefix);
  }
  return kForever;
}

std::optional<NumberPrefix> Extend(const NumberRange& range, NumberPrefix prefix, uint8_t byte) {
  const bool digit = byte >= '0' && byte <= '9';
  if (byte == '-' && prefix.phase == Phase::kStart) {
    prefix.phase = Phase::kMinus;
    prefix.negative = true;
  } else if (byte == '.' && prefix.phase == Phase::kWhole && range.fraction_digits > 0) {
    prefix.phase = Phase::kPoint;
  } else if (digit) {
    const bool leading_zero = prefix.phase == Phase::kWhole && prefix.digits == 0;
    if (leading_zero || prefix.digits > static_cast<uint64_t>(NumberRange::kLimit)) {
      return std::nullopt;
    }
    prefix.digits = prefix.digits * 10 + (byte - '0');
    if (prefix.phase == Phase::kPoint || prefix.phase == Phase::kFraction) {
      prefix.phase = Phase::kFraction;
      ++prefix.fraction;
    } else {
      prefix.phase = Phase::kWhole;
    }
  } else {
    return std::nullopt;
  }
  if (ShortestRest(range, prefix) >= kForever) return std::nullopt;
  return prefix;
}

}  // namespace expertmesh::model

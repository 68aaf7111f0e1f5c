// Decimal numbers between bounds, and multiples, as text: what may follow what stands there
// already. Exact integer arithmetic on a grid of 10^-fraction_digits. Pure.
#pragma once

#include <cstdint>
#include <optional>

#include "model/grammar/byte_machine.h"

namespace expertmesh::model {

struct NumberRange {
  static constexpr int64_t kLimit = 100'000'000'000'000'000;  // 10^17, both bounds lie within

  int64_t low = 0;  // in units of 10^-fraction_digits, both included
  int64_t high = 0;
  int fraction_digits = 0;  // 0 to 9
  int64_t multiple = 0;     // 0 = any; else fraction_digits is 0
};

/// The beginning of such a number.
struct NumberPrefix {
  enum class Phase : uint8_t { kStart, kMinus, kWhole, kPoint, kFraction };
  Phase phase = Phase::kStart;
  bool negative = false;
  uint8_t fraction = 0;  // digits behind the point
  uint64_t digits = 0;   // all digits as one number
};

/// Fewest bytes that make it a number of the range, 0 if it is one; kForever if none can.
uint32_t ShortestRest(const NumberRange& range, const NumberPrefix& prefix);

/// The prefix with one byte more; nullopt if it then begins no number of the range.
std::optional<NumberPrefix> Extend(const NumberRange& range, NumberPrefix prefix, uint8_t byte);

}  // namespace expertmesh::model

// A finite automaton over bytes, every state of which can still be accepted: built from a set of
// literals or from a pattern (pattern.h). Immutable after building, any thread.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace expertmesh::model {

/// Bytes to a text that has no end; every sum of lengths saturates here.
inline constexpr uint32_t kForever = 1u << 30;
inline constexpr uint32_t SaturatingAdd(uint32_t a, uint32_t b) {
  return a + b < kForever ? a + b : kForever;
}

class ByteMachine {
 public:
  using State = uint32_t;
  static constexpr State kStart = 0;
  static constexpr State kNone = 0xFFFF;
  static constexpr size_t kStatesMax = 8192;

  /// Exactly these texts; none twice is needed. kInvalidArgument beyond kStatesMax states.
  static absl::StatusOr<ByteMachine> OfLiterals(const std::vector<std::string>& literals);

  /// A new state without transitions, or kNone beyond kStatesMax.
  State AddState(bool accepting);
  void Connect(State from, uint8_t byte, State to) { next_[from * 256 + byte] = to; }
  /// Takes away what leads nowhere and measures the distances. `quoted`: the bytes stand in a JSON
  /// string, where some need two bytes and control characters without a short escape none.
  void Close(bool quoted);

  size_t size() const { return accepting_.size(); }
  State Next(State from, uint8_t byte) const { return next_[from * 256 + byte]; }
  bool accepting(State state) const { return accepting_[state]; }
  /// Whether any byte may follow.
  bool goes_on(State state) const { return goes_on_[state]; }
  /// Fewest bytes from here to an accepting state, as written; kForever of the start: no text.
  uint32_t distance(State state) const { return distance_[state]; }

 private:
  std::vector<uint16_t> next_;  // [states][256]
  std::vector<bool> accepting_;
  std::vector<bool> goes_on_;
  std::vector<uint32_t> distance_;
};

/// How many bytes a byte takes inside a JSON string: 1, 2 with a backslash, kForever if it cannot
/// stand there (controls that only \u can spell).
uint32_t QuotedCost(uint8_t byte);
/// The byte that a backslash and `letter` stand for, or -1.
int Unescaped(uint8_t letter);

}  // namespace expertmesh::model

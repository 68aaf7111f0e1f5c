// Time as the state machines see it. core/ never reads a clock: an Instant comes with each event.
#pragma once

#include <chrono>
#include <cstdint>

namespace expertmesh::base {

using Micros = std::chrono::microseconds;

/// Microseconds since an arbitrary start; monotonic.
struct Instant {
  int64_t us = 0;
  friend auto operator<=>(Instant, Instant) = default;
  friend Instant operator+(Instant t, Micros d) { return {t.us + d.count()}; }
  friend Micros operator-(Instant a, Instant b) { return Micros(a.us - b.us); }
};
inline constexpr Instant kNever{INT64_MAX};

/// Source of Instants. Processes use SteadyClock, tests and the simulator a virtual one.
class Clock {
 public:
  virtual ~Clock() = default;
  virtual Instant Now() const = 0;
};

/// The machine's monotonic clock. Thread-safe.
class SteadyClock final : public Clock {
 public:
  Instant Now() const override {
    return {std::chrono::duration_cast<Micros>(std::chrono::steady_clock::now().time_since_epoch())
                .count()};
  }
};

/// A clock that moves when told. Not thread-safe.
class ManualClock final : public Clock {
 public:
  Instant Now() const override { return now_; }
  void Advance(Micros d) { now_ = now_ + d; }

 private:
  Instant now_{};
};

}  // namespace expertmesh::base

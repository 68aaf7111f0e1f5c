// Into how many micro-batches a step is cut (docs/architecture.md §8): as measured. Pure: times
// come in as arguments.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <map>
#include <utility>

#include "services/base/clock.h"

namespace expertmesh::attention_worker {

/// What a step took.
struct StepTime {
  base::Micros whole{0};
  base::Micros waited{0};  // of it, for experts, with nothing else to do
};

/// One owner. Steps of a like size (a power of two of rows, decoding or not) share their times. A
/// step is one part until the wait for experts is worth something; then the next larger number of
/// parts is tried for some steps, now and then the next smaller one, and the faster stays.
class MicroBatches {
 public:
  /// `fixed`: always so many, as far as there are rows; 0: as measured.
  explicit MicroBatches(size_t fixed) : fixed_(fixed) {}

  /// Parts of the next step, at least 1.
  size_t Choose(size_t rows, bool decode);
  /// After that step.
  void Took(size_t rows, bool decode, StepTime time);

  static constexpr std::array<size_t, 3> kParts = {1, 2, 4};
  static constexpr size_t kRowsMin = 8;        // of a part
  static constexpr double kWaitWorth = 0.15;   // of the step
  static constexpr double kBetter = 0.97;      // of the time, or nothing changes
  static constexpr uint64_t kFirstTrial = 8;   // steps
  static constexpr uint64_t kTrialEvery = 64;  // steps; after one for nothing twice as many
  static constexpr uint64_t kTrialEveryMax = 1024;
  static constexpr uint64_t kTrialSteps = 4;

 private:
  struct Mean {
    double sum = 0;
    uint64_t count = 0;
    double value() const { return count == 0 ? 0 : sum / static_cast<double>(count); }
  };
  struct Size {
    size_t best = 0;                    // index in kParts
    size_t chosen = 0;                  // of the step that runs
    uint64_t steps = 0;                 // with `best`, since the last trial
    uint64_t next_trial = kFirstTrial;  // in so many steps
    uint64_t pause = kTrialEvery;       // from one trial to the next
    uint64_t trial_left = 0;
    size_t trial = 0;
    bool down = false;  // where the next trial goes if it may go both ways
    Mean best_time;     // µs per row
    Mean trial_time;
    Mean waited;  // share of the step, with `best`
  };
  void StartTrial(Size& size, size_t rows) const;
  void EndTrial(Size& size) const;

  const size_t fixed_;
  std::map<std::pair<bool, int>, Size> sizes_;
};

}  // namespace expertmesh::attention_worker

#include "attention-worker/core/micro_batches.h"

#include <algorithm>
#include <bit>

namespace expertmesh::attention_worker {

namespace {

std::pair<bool, int> KeyOf(size_t rows, bool decode) { return {decode, std::bit_width(rows)}; }

}  // namespace

size_t MicroBatches::Choose(size_t rows, bool decode) {
  if (fixed_ != 0) return std::clamp<size_t>(fixed_, 1, std::max<size_t>(1, rows));
  Size& size = sizes_[KeyOf(rows, decode)];
  if (size.trial_left == 0 && size.steps >= size.next_trial) StartTrial(size, rows);
  size.chosen = size.trial_left > 0 ? size.trial : size.best;
  while (size.chosen > 0 && rows < kParts[size.chosen] * kRowsMin) --size.chosen;
  return kParts[size.chosen];
}

void MicroBatches::StartTrial(Size& size, size_t rows) const {
  const bool up = size.best + 1 < kParts.size() && size.waited.value() >= kWaitWorth &&
                  rows >= kParts[size.best + 1] * kRowsMin;
  const bool down = size.best > 0;
  size.steps = 0;
  size.next_trial = size.pause;
  if (!up && !down) return;
  const bool goes_down = down && (size.down || !up);
  size.trial = goes_down ? size.best - 1 : size.best + 1;
  size.down = !goes_down;
  size.trial_left = kTrialSteps;
  size.trial_time = {};
}

void MicroBatches::EndTrial(Size& size) const {
  const bool better = size.trial_time.value() < kBetter * size.best_time.value();
  if (better) size.best = size.trial;
  size.pause = better ? kTrialEvery : std::min(2 * size.pause, kTrialEveryMax);
  size.next_trial = size.pause;
  size.best_time = {};
  size.waited = {};
}

void MicroBatches::Took(size_t rows, bool decode, StepTime time) {
  if (fixed_ != 0 || rows == 0 || time.whole.count() <= 0) return;
  Size& size = sizes_[KeyOf(rows, decode)];
  const double whole = static_cast<double>(time.whole.count());
  const double per_row = whole / static_cast<double>(rows);
  const auto add = [](Mean& mean, double value) {
    mean.sum += value;
    ++mean.count;
  };
  if (size.trial_left > 0) {
    if (size.chosen == size.trial) add(size.trial_time, per_row);
    if (--size.trial_left == 0 && size.trial_time.count > 0) EndTrial(size);
    return;
  }
  ++size.steps;
  if (size.chosen != size.best) return;
  add(size.best_time, per_row);
  add(size.waited, static_cast<double>(time.waited.count()) / whole);
}

}  // namespace expertmesh::attention_worker

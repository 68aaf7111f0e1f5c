// The expert worker's queue: calls of all streams wait here, and those of one layer are computed
// together. Bounded in rows; the room left is the credit that senders see. Pure, one owner.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <vector>

namespace expertmesh::expert_worker {

struct QueuedCall {
  uint64_t ticket = 0;  // the owner's name for the call
  uint32_t layer = 0;
  uint32_t rows = 0;
};

class Batcher {
 public:
  struct Limits {
    size_t queue_rows_max = 8192;  // rows waiting; more are refused with QUEUE_FULL
    size_t batch_rows_max = 2048;  // rows computed at once
  };
  explicit Batcher(Limits limits) : limits_(limits) {}

  /// False if the queue has no room. An empty queue takes a call of any size.
  bool Offer(const QueuedCall& call);
  /// Tickets of the next batch: the oldest call and every later one of its layer that still fits,
  /// in order of arrival. Empty if nothing waits.
  std::vector<uint64_t> Next();

  size_t queued_rows() const { return queued_rows_; }
  /// Rows that would still be taken.
  size_t credit_rows() const;

 private:
  const Limits limits_;
  std::deque<QueuedCall> queue_;
  size_t queued_rows_ = 0;
};

}  // namespace expertmesh::expert_worker

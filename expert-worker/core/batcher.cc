#include "expert-worker/core/batcher.h"

namespace expertmesh::expert_worker {

bool Batcher::Offer(const QueuedCall& call) {
  if (!queue_.empty() && queued_rows_ + call.rows > limits_.queue_rows_max) return false;
  queue_.push_back(call);
  queued_rows_ += call.rows;
  return true;
}

std::vector<uint64_t> Batcher::Next() {
  std::vector<uint64_t> tickets;
  if (queue_.empty()) return tickets;
  const uint32_t layer = queue_.front().layer;
  size_t rows = 0;
  std::deque<QueuedCall> rest;
  for (const QueuedCall& call : queue_) {
    const bool fits = tickets.empty() || rows + call.rows <= limits_.batch_rows_max;
    if (call.layer == layer && fits) {
      tickets.push_back(call.ticket);
      rows += call.rows;
    } else {
      rest.push_back(call);
    }
  }
  queue_.swap(rest);
  queued_rows_ -= rows;
  return tickets;
}

size_t Batcher::credit_rows() const {
  return queued_rows_ >= limits_.queue_rows_max ? 0 : limits_.queue_rows_max - queued_rows_;
}

}  // namespace expertmesh::expert_worker

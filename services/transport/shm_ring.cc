#include "services/transport/shm_ring.h"

#include <cstring>

#include "services/base/status.h"

namespace expertmesh::transport {
namespace {

using base::Error;
using base::Reason;

constexpr size_t kRecordAlignment = 64;

struct RecordHead {
  uint64_t length;  // of the message behind it
  uint64_t number;  // of the record, from 0
};

}  // namespace

size_t RingRecordBytes(size_t bytes) {
  return (sizeof(RecordHead) + bytes + kRecordAlignment - 1) / kRecordAlignment * kRecordAlignment;
}

absl::StatusOr<bool> RingWriter::TryWrite(std::span<const std::byte> head,
                                          std::span<const std::byte> body) {
  const uint64_t read = ring_.control->read.load(std::memory_order_acquire);
  const uint64_t used = written_ - read;
  if (used > ring_.capacity || used % kRecordAlignment != 0) {
    return Error(Reason::kFrameMalformed, "the reader of a ring is where it cannot be");
  }
  if (head.size() > ring_.capacity || body.size() > ring_.capacity) return false;
  const RecordHead record = {head.size() + body.size(), records_};
  const size_t bytes = RingRecordBytes(record.length);
  if (bytes > ring_.capacity - used) return false;
  std::byte* at = ring_.data + (written_ & (ring_.capacity - 1));
  std::memcpy(at, &record, sizeof(record));
  if (!head.empty()) std::memcpy(at + sizeof(record), head.data(), head.size());
  if (!body.empty()) std::memcpy(at + sizeof(record) + head.size(), body.data(), body.size());
  written_ += bytes;
  ++records_;
  ring_.control->written.store(written_, std::memory_order_release);
  return true;
}

absl::StatusOr<std::optional<std::span<const std::byte>>> RingReader::Next() {
  const uint64_t available = ring_.control->written.load(std::memory_order_acquire) - read_;
  if (available == 0) return std::nullopt;
  if (available > ring_.capacity || available % kRecordAlignment != 0) {
    return Error(Reason::kFrameMalformed, "the writer of a ring is where it cannot be");
  }
  const std::byte* at = ring_.data + (read_ & (ring_.capacity - 1));
  RecordHead record;  // read once: the writer may change it under us
  std::memcpy(&record, at, sizeof(record));
  std::atomic_signal_fence(std::memory_order_seq_cst);
  if (record.length > available - sizeof(record)) {
    return Error(Reason::kFrameMalformed, "a record is longer than what was written");
  }
  if (record.number != records_) {
    return Error(Reason::kFrameMalformed, "a record of a ring is out of order");
  }
  current_ = RingRecordBytes(record.length);
  return std::span<const std::byte>(at + sizeof(record), record.length);
}

void RingReader::Consume() {
  read_ += current_;
  current_ = 0;
  ++records_;
  ring_.control->read.store(read_, std::memory_order_release);
}

}  // namespace expertmesh::transport

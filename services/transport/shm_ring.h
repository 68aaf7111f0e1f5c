// One direction of shared memory: a ring of whole messages with one writer and one reader
// (docs/protocol.md §6). Knows memory only; no descriptor, no thread. Whatever the other side
// writes is checked before it is used.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

#include "absl/status/statusor.h"

namespace expertmesh::transport {

/// In shared memory, zero at the start. Counts bytes and never goes back.
struct RingControl {
  alignas(64) std::atomic<uint64_t> written;  // by the writer
  alignas(64) std::atomic<uint64_t> read;     // by the reader
};
static_assert(sizeof(RingControl) == 128);
static_assert(std::atomic<uint64_t>::is_always_lock_free);

/// Bytes of the ring that a message of `bytes` takes.
size_t RingRecordBytes(size_t bytes);

/// A ring as one side has it mapped. `data` is [2 · capacity]: the same memory twice in a row.
/// `capacity` is a power of two. Owns nothing.
struct RingView {
  RingControl* control = nullptr;
  std::byte* data = nullptr;
  size_t capacity = 0;
};

/// One thread at a time.
class RingWriter {
 public:
  explicit RingWriter(RingView ring) : ring_(ring) {}
  /// Publishes one message, the two parts behind each other. False if there is no room now.
  /// kFrameMalformed if the reader's count is impossible: the ring is then of no more use.
  absl::StatusOr<bool> TryWrite(std::span<const std::byte> head, std::span<const std::byte> body);

 private:
  RingView ring_;
  uint64_t written_ = 0;
  uint64_t records_ = 0;
};

/// One thread at a time.
class RingReader {
 public:
  explicit RingReader(RingView ring) : ring_(ring) {}
  /// The oldest message that was not consumed, in shared memory: the writer may change it at any
  /// moment, so copy before looking. Nothing if the ring is empty. kFrameMalformed for a record
  /// that breaks the rules: the ring is then of no more use.
  absl::StatusOr<std::optional<std::span<const std::byte>>> Next();
  /// Frees the message that Next gave last.
  void Consume();
  /// True if Next would give one, or a fault.
  bool Ready() const {
    return ring_.control->written.load(std::memory_order_acquire) != read_;  // also backwards
  }

 private:
  RingView ring_;
  uint64_t read_ = 0;
  uint64_t records_ = 0;
  size_t current_ = 0;  // bytes of the record that Next gave
};

}  // namespace expertmesh::transport

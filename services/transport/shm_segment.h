// The memory that two processes of one host share: four rings in a sealed memfd
// (docs/protocol.md §6).
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>

#include "absl/status/statusor.h"
#include "services/transport/shm_ring.h"
#include "services/transport/transport.h"
#include "services/transport/unique_fd.h"

namespace expertmesh::transport {

inline constexpr uint32_t kRingVersion = 1;
inline constexpr uint32_t kRingBytesMin = 64u << 10;
inline constexpr uint32_t kRingBytesMax = 128u << 20;

/// Bytes of each ring: powers of two. The attention worker chooses.
struct SegmentSizes {
  std::array<uint32_t, 2> requests = {1u << 20, 4u << 20};  // by Purpose
  std::array<uint32_t, 2> answers = {2u << 20, 8u << 20};   // by Purpose
};

/// One side's mapping; unmapped when destroyed. The rings' ends have owners of their own.
class ShmSegment {
 public:
  /// A new segment, zero, sealed against any change of its size. kInternal if the system gives
  /// none.
  static absl::StatusOr<std::unique_ptr<ShmSegment>> Create(const SegmentSizes& sizes);
  /// The peer's. kFrameMalformed unless it is sealed and exactly as long as the sizes say.
  static absl::StatusOr<std::unique_ptr<ShmSegment>> Map(UniqueFd fd, const SegmentSizes& sizes);
  ~ShmSegment();
  ShmSegment(const ShmSegment&) = delete;
  ShmSegment& operator=(const ShmSegment&) = delete;

  const SegmentSizes& sizes() const { return sizes_; }
  int fd() const { return fd_.get(); }
  RingView requests(Purpose purpose) const;
  RingView answers(Purpose purpose) const;
  /// Set by a side that is about to sleep; see RingDoor.
  std::atomic<uint32_t>& server_asleep() const;
  std::atomic<uint32_t>& client_asleep() const;

 private:
  struct Control;
  ShmSegment(UniqueFd fd, const SegmentSizes& sizes) : fd_(std::move(fd)), sizes_(sizes) {}
  absl::Status MapAll();

  UniqueFd fd_;
  const SegmentSizes sizes_;
  Control* control_ = nullptr;
  std::array<std::byte*, 4> rings_ = {};  // each mapped twice in a row
};

}  // namespace expertmesh::transport

#include "services/transport/shm_segment.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include <bit>
#include <cerrno>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "services/base/status.h"

namespace expertmesh::transport {
namespace {

using base::Error;
using base::Reason;

constexpr size_t kControlBytes = 4096;  // a page, of whatever size pages are
constexpr int kSeals = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL;

absl::Status SystemError(const char* what) {
  return Error(Reason::kInternal, absl::StrCat(what, ": ", strerror(errno)));
}

// In the order of the segment.
std::array<uint32_t, 4> InOrder(const SegmentSizes& sizes) {
  return {sizes.requests[0], sizes.answers[0], sizes.requests[1], sizes.answers[1]};
}

absl::Status CheckSizes(const SegmentSizes& sizes) {
  for (const uint32_t bytes : InOrder(sizes)) {
    if (!std::has_single_bit(bytes) || bytes < kRingBytesMin || bytes > kRingBytesMax) {
      return Error(Reason::kFrameMalformed, absl::StrCat("no ring has ", bytes, " bytes"));
    }
  }
  return absl::OkStatus();
}

size_t TotalBytes(const SegmentSizes& sizes) {
  size_t total = kControlBytes;
  for (const uint32_t bytes : InOrder(sizes)) total += bytes;
  return total;
}

}  // namespace

struct ShmSegment::Control {
  std::array<RingControl, 4> rings;
  alignas(64) std::atomic<uint32_t> server_asleep;
  alignas(64) std::atomic<uint32_t> client_asleep;
};

absl::StatusOr<std::unique_ptr<ShmSegment>> ShmSegment::Create(const SegmentSizes& sizes) {
  EM_RETURN_IF_ERROR(CheckSizes(sizes));
  UniqueFd fd(memfd_create("expertmesh-rings", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (!fd.valid()) return SystemError("memfd_create");
  if (ftruncate(fd.get(), static_cast<off_t>(TotalBytes(sizes))) != 0) {
    return SystemError("ftruncate of a memfd");
  }
  if (fcntl(fd.get(), F_ADD_SEALS, kSeals) != 0) return SystemError("sealing a memfd");
  std::unique_ptr<ShmSegment> segment(new ShmSegment(std::move(fd), sizes));
  EM_RETURN_IF_ERROR(segment->MapAll());
  return segment;
}

absl::StatusOr<std::unique_ptr<ShmSegment>> ShmSegment::Map(UniqueFd fd,
                                                            const SegmentSizes& sizes) {
  EM_RETURN_IF_ERROR(CheckSizes(sizes));
  const int seals = fcntl(fd.get(), F_GET_SEALS);
  if (seals < 0 || (seals & kSeals) != kSeals || (seals & (F_SEAL_WRITE | F_SEAL_FUTURE_WRITE))) {
    return Error(Reason::kFrameMalformed, "the shared memory offered is not sealed as it must be");
  }
  struct stat info = {};
  if (fstat(fd.get(), &info) != 0 || info.st_size < 0 ||
      static_cast<size_t>(info.st_size) != TotalBytes(sizes)) {
    return Error(Reason::kFrameMalformed, "the shared memory offered has another length");
  }
  std::unique_ptr<ShmSegment> segment(new ShmSegment(std::move(fd), sizes));
  EM_RETURN_IF_ERROR(segment->MapAll());
  return segment;
}

absl::Status ShmSegment::MapAll() {
  static_assert(sizeof(Control) <= kControlBytes);
  constexpr int kAccess = PROT_READ | PROT_WRITE;
  void* control = mmap(nullptr, kControlBytes, kAccess, MAP_SHARED, fd_.get(), 0);
  if (control == MAP_FAILED) return SystemError("mapping a segment");
  control_ = static_cast<Control*>(control);
  auto offset = static_cast<off_t>(kControlBytes);
  const std::array<uint32_t, 4> sizes = InOrder(sizes_);
  for (size_t i = 0; i < sizes.size(); ++i) {
    // Room for two copies is reserved first, so that nothing else can come between them.
    void* twice =
        mmap(nullptr, size_t{2} * sizes[i], PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (twice == MAP_FAILED) return SystemError("mapping a ring");
    rings_[i] = static_cast<std::byte*>(twice);
    for (size_t copy = 0; copy < 2; ++copy) {
      void* at = rings_[i] + copy * sizes[i];
      if (mmap(at, sizes[i], kAccess, MAP_SHARED | MAP_FIXED, fd_.get(), offset) == MAP_FAILED) {
        return SystemError("mapping a ring");
      }
    }
    offset += sizes[i];
  }
  return absl::OkStatus();
}

ShmSegment::~ShmSegment() {
  const std::array<uint32_t, 4> sizes = InOrder(sizes_);
  for (size_t i = 0; i < sizes.size(); ++i) {
    if (rings_[i] != nullptr) munmap(rings_[i], size_t{2} * sizes[i]);
  }
  if (control_ != nullptr) munmap(control_, kControlBytes);
}

RingView ShmSegment::requests(Purpose purpose) const {
  const auto p = static_cast<size_t>(purpose);
  return {&control_->rings[2 * p], rings_[2 * p], sizes_.requests[p]};
}

RingView ShmSegment::answers(Purpose purpose) const {
  const auto p = static_cast<size_t>(purpose);
  return {&control_->rings[2 * p + 1], rings_[2 * p + 1], sizes_.answers[p]};
}

std::atomic<uint32_t>& ShmSegment::server_asleep() const { return control_->server_asleep; }
std::atomic<uint32_t>& ShmSegment::client_asleep() const { return control_->client_asleep; }

}  // namespace expertmesh::transport

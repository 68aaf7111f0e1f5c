#include "services/transport/buffer_pool.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <new>
#include <utility>

namespace expertmesh::transport {
namespace {

constexpr std::align_val_t kAlign{kPayloadAlignment};

std::byte* Allocate(size_t bytes) { return static_cast<std::byte*>(::operator new(bytes, kAlign)); }
void Free(std::byte* data) { ::operator delete(data, kAlign); }

}  // namespace

Buffer::Buffer(size_t bytes)
    : data_(Allocate(std::max<size_t>(bytes, 1))), size_(bytes), capacity_(bytes) {
  std::memset(data_, 0, bytes);
}

Buffer::Buffer(Buffer&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)),
      size_(std::exchange(other.size_, 0)),
      capacity_(std::exchange(other.capacity_, 0)),
      pool_(std::move(other.pool_)) {}

Buffer& Buffer::operator=(Buffer&& other) noexcept {
  if (this != &other) {
    Release();
    data_ = std::exchange(other.data_, nullptr);
    size_ = std::exchange(other.size_, 0);
    capacity_ = std::exchange(other.capacity_, 0);
    pool_ = std::move(other.pool_);
  }
  return *this;
}

Buffer::~Buffer() { Release(); }

void Buffer::Release() {
  if (data_ == nullptr) return;
  if (pool_) {
    pool_->GiveBack({data_, capacity_});
  } else {
    Free(data_);
  }
  data_ = nullptr;
  pool_.reset();
}

BufferPool::~BufferPool() {
  for (const Slab& slab : free_) Free(slab.data);
}

Buffer BufferPool::Acquire(size_t bytes) {
  Buffer buffer;
  buffer.size_ = bytes;
  buffer.pool_ = shared_from_this();
  {
    std::lock_guard lock(mutex_);
    for (size_t i = free_.size(); i-- > 0;) {
      if (free_[i].capacity < bytes) continue;
      buffer.data_ = free_[i].data;
      buffer.capacity_ = free_[i].capacity;
      free_.erase(free_.begin() + static_cast<std::ptrdiff_t>(i));
      return buffer;
    }
  }
  buffer.capacity_ = std::max<size_t>(std::bit_ceil(bytes), 4096);
  buffer.data_ = Allocate(buffer.capacity_);
  return buffer;
}

void BufferPool::GiveBack(Slab slab) {
  {
    std::lock_guard lock(mutex_);
    if (free_.size() < kept_max_) {
      free_.push_back(slab);
      return;
    }
  }
  Free(slab.data);
}

}  // namespace expertmesh::transport

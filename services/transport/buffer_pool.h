// Payload memory: 64-byte aligned, reused. A frame is gathered once into such a buffer and computed
// from there (docs/protocol.md §1).
#pragma once

#include <cstddef>
#include <memory>
#include <mutex>
#include <span>
#include <vector>

namespace expertmesh::transport {

inline constexpr size_t kPayloadAlignment = 64;

class BufferPool;

/// Movable, owned by one thread at a time; goes back to its pool when destroyed.
class Buffer {
 public:
  Buffer() = default;
  /// A buffer without a pool, zeroed.
  explicit Buffer(size_t bytes);
  Buffer(Buffer&& other) noexcept;
  Buffer& operator=(Buffer&& other) noexcept;
  ~Buffer();

  std::byte* data() { return data_; }
  const std::byte* data() const { return data_; }
  size_t size() const { return size_; }
  std::span<std::byte> span() { return {data_, size_}; }
  std::span<const std::byte> span() const { return {data_, size_}; }

 private:
  friend class BufferPool;
  void Release();

  std::byte* data_ = nullptr;
  size_t size_ = 0;
  size_t capacity_ = 0;
  std::shared_ptr<BufferPool> pool_;
};

/// Keeps at most `kept_max` free buffers. Thread-safe; make it with std::make_shared.
class BufferPool : public std::enable_shared_from_this<BufferPool> {
 public:
  explicit BufferPool(size_t kept_max = 64) : kept_max_(kept_max) {}
  ~BufferPool();

  /// A buffer of `bytes`; its content is undefined.
  Buffer Acquire(size_t bytes);

 private:
  friend class Buffer;
  struct Slab {
    std::byte* data;
    size_t capacity;
  };
  void GiveBack(Slab slab);

  const size_t kept_max_;
  std::mutex mutex_;
  std::vector<Slab> free_;  // guarded by mutex_
};

}  // namespace expertmesh::transport

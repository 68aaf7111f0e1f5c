// Lane state is declared, not assumed (docs/architecture.md §6): a model lists typed streams, and
// the allocator, preemption, drain and hand-off know only that list.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace expertmesh::model {

inline constexpr uint32_t kPagePositions = 64;

enum class LaneStreamKind { kTokenPages, kCompressedPages, kWindowRing, kFixedTail };

/// One stream of lane state, e.g. "mla_latent": [layers][positions][bytes_per_position].
struct LaneStream {
  std::string name;
  LaneStreamKind kind = LaneStreamKind::kTokenPages;
  uint32_t layers = 0;
  uint32_t bytes_per_position = 0;  // per layer
  uint32_t page_positions = kPagePositions;
  uint32_t cut_stride = 1;  // positions at which it can be cut
};

struct LaneStateDeclaration {
  std::vector<LaneStream> streams;
  size_t bytes_per_token() const;  // over all layers and streams
  size_t page_bytes() const;       // one page: all layers and streams of kPagePositions positions
};

/// A bounded pool of pages, all of one size, 64-byte aligned. A page may have several owners that
/// read it; it is free again when the last has released it. Owned by the engine thread.
class PagePool {
 public:
  PagePool(const LaneStateDeclaration& declaration, size_t page_count);
  ~PagePool();
  PagePool(const PagePool&) = delete;
  PagePool& operator=(const PagePool&) = delete;

  const LaneStateDeclaration& declaration() const { return declaration_; }
  size_t page_count() const { return page_count_; }
  size_t used() const { return page_count_ - free_.size(); }
  size_t free() const { return free_.size(); }
  /// One owner more of a page in use.
  void AddOwner(uint32_t page) { ++owners_[page]; }
  /// One owner less.
  void Release(uint32_t page);

 private:
  friend class LaneState;
  LaneStateDeclaration declaration_;
  size_t page_count_ = 0;
  size_t page_bytes_ = 0;
  std::byte* memory_ = nullptr;
  std::vector<uint32_t> free_;
  std::vector<uint32_t> owners_;  // [page_count]
};

/// The pages of one lane; gives them back when destroyed. Owned by the engine thread.
class LaneState {
 public:
  explicit LaneState(PagePool& pool) : pool_(&pool) {}
  ~LaneState();
  LaneState(const LaneState&) = delete;
  LaneState& operator=(const LaneState&) = delete;

  /// Makes room for `positions` positions; false (and no change) if the pool is short.
  bool Reserve(size_t positions);
  /// Gives all pages back (preemption by recompute).
  void Clear();
  size_t capacity() const { return pages_.size() * kPagePositions; }

  /// Pages in order of their positions; their numbers in the pool.
  std::span<const uint32_t> pages() const { return pages_; }
  /// Begins with pages that others own too and that are full: they are read, never written. The
  /// lane must be empty.
  void Adopt(std::span<const uint32_t> pages);
  /// Takes `page`, which holds the same state, for the page at `place`, and releases that one.
  void Replace(size_t place, uint32_t page);

  /// Absolute position of the lane's first token; index = position − first_position. Set before
  /// use.
  void set_first_position(uint64_t position) { first_position_ = position; }
  uint64_t first_position() const { return first_position_; }

  /// Memory of one entry: stream s, layer l, index i (0-based inside the lane).
  std::byte* At(size_t stream, size_t layer, size_t index);
  const std::byte* At(size_t stream, size_t layer, size_t index) const;
  /// Contiguous run: entries [page·64, page·64+64) of a stream and layer.
  const std::byte* Page(size_t stream, size_t layer, size_t page) const;

  /// State of the first `positions` entries of a page, streams and layers in order; nothing of what
  /// lies behind them, which may be another lane's.
  std::string CopyPage(size_t page, size_t positions) const;
  /// The reverse; false (and no change) if `state` has another size. The page must be the lane's
  /// alone.
  bool WritePage(size_t page, size_t positions, std::string_view state);

  /// 64-bit hash over all streams and layers of one index, for the replay tests.
  uint64_t HashOf(size_t index) const;

 private:
  PagePool* pool_;
  std::vector<uint32_t> pages_;
  uint64_t first_position_ = 0;
};

}  // namespace expertmesh::model

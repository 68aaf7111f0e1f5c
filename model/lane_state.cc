#include "model/lane_state.h"

#include <sys/mman.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "services/base/hash.h"

namespace expertmesh::model {

size_t LaneStateDeclaration::bytes_per_token() const {
  size_t bytes = 0;
  for (const LaneStream& s : streams) bytes += size_t{s.layers} * s.bytes_per_position;
  return bytes;
}

size_t LaneStateDeclaration::page_bytes() const { return bytes_per_token() * kPagePositions; }

// One mapping: pages that were never used cost no memory. A page is [streams][layers][64][bytes];
// 64 positions of any size keep every run 64-byte aligned.
PagePool::PagePool(const LaneStateDeclaration& declaration, size_t page_count)
    : declaration_(declaration), page_count_(page_count), page_bytes_(declaration.page_bytes()) {
  if (page_count_ == 0 || page_bytes_ == 0) return;
  void* memory = mmap(nullptr, page_bytes_ * page_count_, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) {
    std::fprintf(stderr, "out of memory: %zu lane pages of %zu bytes\n", page_count_, page_bytes_);
    std::abort();
  }
  madvise(memory, page_bytes_ * page_count_, MADV_HUGEPAGE);  // long contexts are read as streams
  memory_ = static_cast<std::byte*>(memory);
  owners_.assign(page_count_, 0);
  free_.reserve(page_count_);
  for (size_t i = page_count_; i > 0; --i) free_.push_back(static_cast<uint32_t>(i - 1));
}

PagePool::~PagePool() {
  if (memory_ != nullptr) munmap(memory_, page_bytes_ * page_count_);
}

void PagePool::Release(uint32_t page) {
  if (--owners_[page] == 0) free_.push_back(page);
}

LaneState::~LaneState() { Clear(); }

bool LaneState::Reserve(size_t positions) {
  const size_t wanted = (positions + kPagePositions - 1) / kPagePositions;
  if (wanted <= pages_.size()) return true;
  const size_t missing = wanted - pages_.size();
  if (missing > pool_->free_.size()) return false;
  for (size_t i = 0; i < missing; ++i) {
    pages_.push_back(pool_->free_.back());
    pool_->AddOwner(pages_.back());
    pool_->free_.pop_back();
  }
  return true;
}

void LaneState::Clear() {
  for (auto page = pages_.rbegin(); page != pages_.rend(); ++page) pool_->Release(*page);
  pages_.clear();
}

void LaneState::Adopt(std::span<const uint32_t> pages) {
  for (uint32_t page : pages) pool_->AddOwner(page);
  pages_.assign(pages.begin(), pages.end());
}

void LaneState::Replace(size_t place, uint32_t page) {
  pool_->AddOwner(page);
  pool_->Release(pages_[place]);
  pages_[place] = page;
}

const std::byte* LaneState::At(size_t stream, size_t layer, size_t index) const {
  const std::vector<LaneStream>& streams = pool_->declaration_.streams;
  size_t offset = pages_[index / kPagePositions] * pool_->page_bytes_;
  for (size_t s = 0; s < stream; ++s) {
    offset += size_t{streams[s].layers} * streams[s].bytes_per_position * kPagePositions;
  }
  const size_t entry = layer * kPagePositions + index % kPagePositions;
  return pool_->memory_ + offset + entry * streams[stream].bytes_per_position;
}

std::byte* LaneState::At(size_t stream, size_t layer, size_t index) {
  return const_cast<std::byte*>(static_cast<const LaneState*>(this)->At(stream, layer, index));
}

const std::byte* LaneState::Page(size_t stream, size_t layer, size_t page) const {
  return At(stream, layer, page * kPagePositions);
}

std::string LaneState::CopyPage(size_t page, size_t positions) const {
  std::string state;
  state.reserve(positions * pool_->declaration_.bytes_per_token());
  const std::vector<LaneStream>& streams = pool_->declaration_.streams;
  for (size_t s = 0; s < streams.size(); ++s) {
    for (size_t layer = 0; layer < streams[s].layers; ++layer) {
      state.append(reinterpret_cast<const char*>(Page(s, layer, page)),
                   positions * streams[s].bytes_per_position);
    }
  }
  return state;
}

bool LaneState::WritePage(size_t page, size_t positions, std::string_view state) {
  if (page >= pages_.size() || positions > kPagePositions ||
      state.size() != positions * pool_->declaration_.bytes_per_token()) {
    return false;
  }
  const std::vector<LaneStream>& streams = pool_->declaration_.streams;
  for (size_t s = 0; s < streams.size(); ++s) {
    for (size_t layer = 0; layer < streams[s].layers; ++layer) {
      const size_t bytes = positions * streams[s].bytes_per_position;
      std::memcpy(At(s, layer, page * kPagePositions), state.data(), bytes);
      state.remove_prefix(bytes);
    }
  }
  return true;
}

uint64_t LaneState::HashOf(size_t index) const {
  std::vector<std::byte> bytes;
  bytes.reserve(pool_->declaration_.bytes_per_token());
  const std::vector<LaneStream>& streams = pool_->declaration_.streams;
  for (size_t s = 0; s < streams.size(); ++s) {
    for (size_t layer = 0; layer < streams[s].layers; ++layer) {
      const std::byte* entry = At(s, layer, index);
      bytes.insert(bytes.end(), entry, entry + streams[s].bytes_per_position);
    }
  }
  return base::Hash64(bytes);
}

}  // namespace expertmesh::model

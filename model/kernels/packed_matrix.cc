#include "model/kernels/packed_matrix.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>

#include "model/kernels/bf16.h"
#include "model/kernels/pack_fp8.h"
#include "model/kernels/pack_int8.h"
#include "services/base/status.h"

namespace expertmesh::model {
namespace {

constexpr size_t kMappingBytes = size_t{64} << 20;
constexpr size_t kHugePageBytes = size_t{2} << 20;

void Write(float value, float* to) { *to = value; }
void Write(float value, uint16_t* to) { *to = NarrowBf16(value); }

// Elements of one decoded row go `step` apart.
template <class T>
void Scatter(const std::vector<float>& row, T* to, size_t step) {
  for (size_t k = 0; k < row.size(); ++k) Write(row[k], to + k * step);
}

template <class T>
void ScatterInput(const std::vector<float>& row, T* panels, size_t inputs, size_t k) {
  for (size_t o = 0; o < row.size(); ++o) {
    Write(row[o], panels + (o / 16) * inputs * 16 + k * 16 + o % 16);
  }
}

// Zeroed memory on a boundary of huge pages, which the kernel is asked for: with small ones the
// walk through the page tables halves the rate at which one core reads weights. Where it has none
// to give, small ones do.
std::byte* MapHuge(size_t bytes) {
  void* memory = mmap(nullptr, bytes + kHugePageBytes, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) {
    std::fprintf(stderr, "out of memory: %zu bytes for weights\n", bytes);
    std::abort();
  }
  auto* begin = static_cast<std::byte*>(memory);
  const size_t over = reinterpret_cast<uintptr_t>(begin) % kHugePageBytes;
  const size_t head = over == 0 ? 0 : kHugePageBytes - over;
  if (head > 0) munmap(begin, head);
  munmap(begin + head + bytes, kHugePageBytes - head);
  madvise(begin + head, bytes, MADV_HUGEPAGE);
  return begin + head;
}

absl::Status PackInt8Rows(const StoredMatrix& from, size_t row_begin, size_t rows, PackedMatrix& to,
                          size_t output_begin) {
  Int8Row row;
  for (size_t r = 0; r < rows; ++r) {
    EM_RETURN_IF_ERROR(IsFourBit(to.dtype) ? ReadFourBitRow(from, row_begin + r, row)
                                           : ReadInt8Row(from, row_begin + r, row));
    StoreInt8Row(row, output_begin + r, to);
  }
  return absl::OkStatus();
}

absl::Status PackInt8Transposed(const StoredMatrix& from, size_t row_begin, PackedMatrix& to) {
  std::vector<float> block(to.inputs * to.outputs);
  EM_RETURN_IF_ERROR(DecodeRows(from, row_begin, to.inputs, block.data()));
  std::vector<float> values(to.inputs);
  Int8Row row;
  for (size_t o = 0; o < to.outputs; ++o) {
    for (size_t k = 0; k < to.inputs; ++k) values[k] = block[k * to.outputs + o];
    EM_RETURN_IF_ERROR(QuantiseInt8Row(from, values, row));
    StoreInt8Row(row, o, to);
  }
  return absl::OkStatus();
}

}  // namespace

WeightArena::~WeightArena() { Clear(); }

void WeightArena::Clear() {
  for (const Mapping& m : mappings_) munmap(m.memory, m.bytes);
  mappings_.clear();
  allocations_.clear();
  used_ = 0;
  allocated_ = 0;
}

std::byte* WeightArena::Allocate(size_t bytes) {
  bytes = Rounded(bytes);
  if (mappings_.empty() || mappings_.back().bytes - used_ < bytes) {
    const size_t size =
        (std::max(bytes, kMappingBytes) + kHugePageBytes - 1) / kHugePageBytes * kHugePageBytes;
    mappings_.push_back({MapHuge(size), size});
    used_ = 0;
  }
  std::byte* result = mappings_.back().memory + used_;
  used_ += bytes;
  allocated_ += bytes;
  allocations_.push_back({result, bytes});
  return result;
}

PackedMatrix WeightArena::NewMatrix(size_t outputs, size_t inputs, Dtype dtype) {
  PackedMatrix matrix{outputs, inputs, dtype, nullptr};
  matrix.panels = Allocate(matrix.bytes());
  return matrix;
}

absl::Status PackRows(const StoredMatrix& from, size_t row_begin, size_t rows, PackedMatrix& to,
                      size_t output_begin) {
  if (IsInt8Weight(to.dtype)) return PackInt8Rows(from, row_begin, rows, to, output_begin);
  if (to.dtype == Dtype::kFp8) return PackFp8Rows(from, row_begin, rows, to, output_begin);
  std::vector<float> row(to.inputs);
  for (size_t r = 0; r < rows; ++r) {
    EM_RETURN_IF_ERROR(DecodeRows(from, row_begin + r, 1, row.data()));
    const size_t output = output_begin + r;
    const size_t at = (output / 16) * to.inputs * 16 + output % 16;
    if (to.dtype == Dtype::kF32) {
      Scatter(row, reinterpret_cast<float*>(to.panels) + at, 16);
    } else {
      Scatter(row, reinterpret_cast<uint16_t*>(to.panels) + at, 16);
    }
  }
  return absl::OkStatus();
}

absl::Status PackTransposed(const StoredMatrix& from, size_t row_begin, PackedMatrix& to) {
  if (to.dtype == Dtype::kInt8) return PackInt8Transposed(from, row_begin, to);
  std::vector<float> row(to.outputs);
  for (size_t k = 0; k < to.inputs; ++k) {
    EM_RETURN_IF_ERROR(DecodeRows(from, row_begin + k, 1, row.data()));
    if (to.dtype == Dtype::kF32) {
      ScatterInput(row, reinterpret_cast<float*>(to.panels), to.inputs, k);
    } else {
      ScatterInput(row, reinterpret_cast<uint16_t*>(to.panels), to.inputs, k);
    }
  }
  return absl::OkStatus();
}

}  // namespace expertmesh::model

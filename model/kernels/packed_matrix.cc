#include "model/kernels/packed_matrix.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "model/kernels/bf16.h"

namespace expertmesh::model {
namespace {

constexpr size_t kMappingBytes = size_t{64} << 20;

struct F32Source {
  static constexpr size_t kBytes = 4;
  static float Read(const std::byte* p) {
    float value;
    std::memcpy(&value, p, sizeof(value));
    return value;
  }
};
struct Bf16Source {
  static constexpr size_t kBytes = 2;
  static float Read(const std::byte* p) {
    uint16_t value;
    std::memcpy(&value, p, sizeof(value));
    return WidenBf16(value);
  }
};

void Write(float value, float* to) { *to = value; }
void Write(float value, uint16_t* to) { *to = NarrowBf16(value); }

template <class Source, class T>
void PackRowsOf(const std::byte* rows_begin, size_t rows, PackedMatrix& m, size_t output_begin) {
  T* panels = reinterpret_cast<T*>(m.panels);
  for (size_t row = 0; row < rows; ++row) {
    const size_t output = output_begin + row;
    T* to = panels + (output / 16) * m.inputs * 16 + output % 16;
    const std::byte* from = rows_begin + row * m.inputs * Source::kBytes;
    for (size_t k = 0; k < m.inputs; ++k)
      Write(Source::Read(from + k * Source::kBytes), to + k * 16);
  }
}

template <class Source, class T>
void PackTransposedOf(const std::byte* rows_begin, PackedMatrix& m) {
  T* panels = reinterpret_cast<T*>(m.panels);
  for (size_t k = 0; k < m.inputs; ++k) {
    const std::byte* from = rows_begin + k * m.outputs * Source::kBytes;
    for (size_t o = 0; o < m.outputs; ++o) {
      Write(Source::Read(from + o * Source::kBytes),
            panels + (o / 16) * m.inputs * 16 + k * 16 + o % 16);
    }
  }
}

}  // namespace

WeightArena::~WeightArena() {
  for (const Mapping& m : mappings_) munmap(m.memory, m.bytes);
}

std::byte* WeightArena::Allocate(size_t bytes) {
  bytes = (bytes + 63) / 64 * 64;
  if (mappings_.empty() || mappings_.back().bytes - used_ < bytes) {
    const size_t size = std::max(bytes, kMappingBytes);
    void* memory = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) {
      std::fprintf(stderr, "out of memory: %zu bytes for weights\n", size);
      std::abort();
    }
    mappings_.push_back({static_cast<std::byte*>(memory), size});
    used_ = 0;
  }
  std::byte* result = mappings_.back().memory + used_;
  used_ += bytes;
  allocated_ += bytes;
  return result;
}

PackedMatrix WeightArena::NewMatrix(size_t outputs, size_t inputs, Dtype dtype) {
  PackedMatrix matrix{outputs, inputs, dtype, nullptr};
  matrix.panels = Allocate(matrix.bytes());
  return matrix;
}

void PackRows(const TensorView& tensor, size_t row_begin, size_t rows, PackedMatrix& matrix,
              size_t output_begin) {
  const bool f32 = tensor.type == TensorType::kF32;
  const std::byte* from =
      tensor.bytes.data() + row_begin * matrix.inputs * TensorTypeBytes(tensor.type);
  if (matrix.dtype == Dtype::kF32) {
    f32 ? PackRowsOf<F32Source, float>(from, rows, matrix, output_begin)
        : PackRowsOf<Bf16Source, float>(from, rows, matrix, output_begin);
  } else {
    f32 ? PackRowsOf<F32Source, uint16_t>(from, rows, matrix, output_begin)
        : PackRowsOf<Bf16Source, uint16_t>(from, rows, matrix, output_begin);
  }
}

void PackTransposed(const TensorView& tensor, size_t row_begin, PackedMatrix& matrix) {
  const bool f32 = tensor.type == TensorType::kF32;
  const std::byte* from =
      tensor.bytes.data() + row_begin * matrix.outputs * TensorTypeBytes(tensor.type);
  if (matrix.dtype == Dtype::kF32) {
    f32 ? PackTransposedOf<F32Source, float>(from, matrix)
        : PackTransposedOf<Bf16Source, float>(from, matrix);
  } else {
    f32 ? PackTransposedOf<F32Source, uint16_t>(from, matrix)
        : PackTransposedOf<Bf16Source, uint16_t>(from, matrix);
  }
}

std::vector<float> ReadFloats(const TensorView& tensor) {
  std::vector<float> values(tensor.bytes.size() / TensorTypeBytes(tensor.type));
  const std::byte* p = tensor.bytes.data();
  for (size_t i = 0; i < values.size(); ++i) {
    values[i] =
        tensor.type == TensorType::kF32 ? F32Source::Read(p + i * 4) : Bf16Source::Read(p + i * 2);
  }
  return values;
}

}  // namespace expertmesh::model

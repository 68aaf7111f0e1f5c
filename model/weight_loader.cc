#include "model/weight_loader.h"

#include <cstring>

#include "model/kernels/bf16.h"
#include "services/base/status.h"

namespace expertmesh::model {

Dtype WeightLoader::DtypeFor(const TensorView& view) const {
  return profile_.round_weights || view.type == TensorType::kBf16 ? Dtype::kBf16 : Dtype::kF32;
}

absl::StatusOr<PackedMatrix> WeightLoader::Stacked(const std::vector<Part>& parts,
                                                   size_t inputs) const {
  std::vector<TensorView> views;
  Dtype dtype = Dtype::kBf16;
  size_t outputs = 0;
  for (const Part& part : parts) {
    EM_ASSIGN_OR_RETURN(TensorView view, checkpoint_.Float(part.name, {part.outputs, inputs}));
    if (DtypeFor(view) == Dtype::kF32) dtype = Dtype::kF32;
    outputs += part.outputs;
    views.push_back(std::move(view));
  }
  PackedMatrix matrix = arena_.NewMatrix(outputs, inputs, dtype);
  size_t at = 0;
  for (size_t i = 0; i < parts.size(); ++i) {
    PackRows(views[i], 0, parts[i].outputs, matrix, at);
    at += parts[i].outputs;
    checkpoint_.Release(views[i]);
  }
  return matrix;
}

absl::StatusOr<PackedMatrix> WeightLoader::UnroundedMatrix(const std::string& name, size_t outputs,
                                                           size_t inputs) const {
  EM_ASSIGN_OR_RETURN(const TensorView view, checkpoint_.Float(name, {outputs, inputs}));
  const Dtype dtype = view.type == TensorType::kBf16 ? Dtype::kBf16 : Dtype::kF32;
  PackedMatrix matrix = arena_.NewMatrix(outputs, inputs, dtype);
  PackRows(view, 0, outputs, matrix, 0);
  checkpoint_.Release(view);
  return matrix;
}

absl::StatusOr<WeightLoader::Absorbed> WeightLoader::KeyValue(const std::string& name, size_t heads,
                                                              size_t nope, size_t value,
                                                              size_t rank) const {
  EM_ASSIGN_OR_RETURN(const TensorView view,
                      checkpoint_.Float(name, {heads * (nope + value), rank}));
  const Dtype dtype = DtypeFor(view);
  Absorbed absorbed;
  for (size_t h = 0; h < heads; ++h) {
    const size_t row = h * (nope + value);
    absorbed.key.push_back(arena_.NewMatrix(rank, nope, dtype));
    PackTransposed(view, row, absorbed.key.back());
    absorbed.value.push_back(arena_.NewMatrix(value, rank, dtype));
    PackRows(view, row + nope, value, absorbed.value.back(), 0);
  }
  checkpoint_.Release(view);
  return absorbed;
}

absl::StatusOr<WeightLoader::Table> WeightLoader::Lookup(const std::string& name, size_t rows,
                                                         size_t width) const {
  EM_ASSIGN_OR_RETURN(const TensorView view, checkpoint_.Float(name, {rows, width}));
  const Dtype dtype = DtypeFor(view);
  std::byte* memory = arena_.Allocate(rows * width * DtypeBytes(dtype));
  if (dtype == Dtype::kBf16 && view.type == TensorType::kF32) {
    for (size_t i = 0; i < rows * width; ++i) {
      float element;
      std::memcpy(&element, view.bytes.data() + i * sizeof(element), sizeof(element));
      reinterpret_cast<uint16_t*>(memory)[i] = NarrowBf16(element);
    }
  } else {
    std::memcpy(memory, view.bytes.data(), view.bytes.size());
  }
  checkpoint_.Release(view);
  return Table{dtype, width, memory};
}

void WeightLoader::Table::Read(size_t index, float* out) const {
  if (dtype == Dtype::kF32) {
    std::memcpy(out, rows + index * width * sizeof(float), width * sizeof(float));
    return;
  }
  const uint16_t* row = reinterpret_cast<const uint16_t*>(rows) + index * width;
  for (size_t i = 0; i < width; ++i) out[i] = WidenBf16(row[i]);
}

absl::StatusOr<std::vector<float>> WeightLoader::Vector(const std::string& name,
                                                        size_t size) const {
  EM_ASSIGN_OR_RETURN(const TensorView view, checkpoint_.Float(name, {size}));
  std::vector<float> values = ReadFloats(view);
  checkpoint_.Release(view);
  return values;
}

}  // namespace expertmesh::model

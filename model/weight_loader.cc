#include "model/weight_loader.h"

#include <cstring>

#include "model/kernels/bf16.h"
#include "model/kernels/kernel_table.h"
#include "model/kernels/pack_fp8.h"
#include "model/kernels/pack_int8.h"
#include "services/base/status.h"

namespace expertmesh::model {

namespace {

Dtype ExactDtype(const StoredMatrix& matrix) {
  return matrix.format == kPlainBf16 ? Dtype::kBf16 : Dtype::kF32;
}

}  // namespace

Dtype WeightLoader::LinearDtype(const StoredMatrix& matrix) const {
  if (profile_.weights == Profile::Weights::kInt8) return Int8WeightDtype(matrix.format);
  return TableDtype(matrix);
}

Dtype WeightLoader::TableDtype(const StoredMatrix& matrix) const {
  return profile_.weights == Profile::Weights::kAsStored ? ExactDtype(matrix) : Dtype::kBf16;
}

absl::StatusOr<std::byte*> WeightLoader::Allocate(size_t bytes) const {
  if (packed_ == nullptr) return arena_.Allocate(bytes);
  if (std::byte* piece = packed_->Take(bytes)) return piece;
  return base::Error(base::Reason::kBadCheckpoint, "the packed weights end early");
}

absl::StatusOr<PackedMatrix> WeightLoader::NewMatrix(size_t outputs, size_t inputs,
                                                     Dtype dtype) const {
  PackedMatrix matrix{outputs, inputs, dtype, nullptr};
  EM_ASSIGN_OR_RETURN(matrix.panels, Allocate(matrix.bytes()));
  return matrix;
}

absl::StatusOr<PackedMatrix> WeightLoader::Stacked(const std::vector<Part>& parts,
                                                   size_t inputs) const {
  std::vector<StoredMatrix> sources;
  Dtype dtype = Dtype::kBf16;  // the widest of the parts; in the profile int8 that of all, or int8
  bool fp8 = profile_.weights == Profile::Weights::kBf16;  // all parts stay as they are
  size_t outputs = 0;
  for (const Part& part : parts) {
    EM_ASSIGN_OR_RETURN(StoredMatrix source, checkpoint_.Matrix(part.name, part.outputs, inputs));
    const Dtype own = LinearDtype(source);
    if (IsInt8Weight(own)) {
      dtype = sources.empty() || dtype == own ? own : Dtype::kInt8;
    } else if (own != Dtype::kBf16) {
      dtype = own;
    }
    fp8 = fp8 && outputs % kPanelOutputs == 0 && FitsFp8Panels(source);
    outputs += part.outputs;
    sources.push_back(std::move(source));
  }
  if (fp8) dtype = Dtype::kFp8;
  EM_ASSIGN_OR_RETURN(PackedMatrix matrix, NewMatrix(outputs, inputs, dtype));
  size_t at = 0;
  for (size_t i = 0; i < parts.size(); ++i) {
    if (packed_ == nullptr) {
      EM_RETURN_IF_ERROR(PackRows(sources[i], 0, parts[i].outputs, matrix, at));
    }
    at += parts[i].outputs;
    checkpoint_.Release(sources[i]);
  }
  return matrix;
}

absl::StatusOr<PackedMatrix> WeightLoader::UnroundedMatrix(const std::string& name, size_t outputs,
                                                           size_t inputs) const {
  EM_ASSIGN_OR_RETURN(const TensorView view, checkpoint_.Float(name, {outputs, inputs}));
  const StoredMatrix source = PlainMatrix(view);
  EM_ASSIGN_OR_RETURN(PackedMatrix matrix, NewMatrix(outputs, inputs, ExactDtype(source)));
  if (packed_ != nullptr) return matrix;
  EM_RETURN_IF_ERROR(PackRows(source, 0, outputs, matrix, 0));
  checkpoint_.Release(view);
  return matrix;
}

absl::StatusOr<WeightLoader::Absorbed> WeightLoader::KeyValue(const std::string& name, size_t heads,
                                                              size_t nope, size_t value,
                                                              size_t rank) const {
  EM_ASSIGN_OR_RETURN(const StoredMatrix source,
                      checkpoint_.Matrix(name, heads * (nope + value), rank));
  const Dtype dtype = LinearDtype(source);
  const Dtype turned = IsInt8Weight(dtype) ? Dtype::kInt8 : dtype;  // its groups are other ones
  Absorbed absorbed;
  for (size_t h = 0; h < heads; ++h) {
    const size_t row = h * (nope + value);
    EM_ASSIGN_OR_RETURN(const PackedMatrix wk, NewMatrix(rank, nope, turned));
    EM_ASSIGN_OR_RETURN(const PackedMatrix wv, NewMatrix(value, rank, dtype));
    absorbed.key.push_back(wk);
    absorbed.value.push_back(wv);
    if (packed_ != nullptr) continue;
    EM_RETURN_IF_ERROR(PackTransposed(source, row, absorbed.key.back()));
    EM_RETURN_IF_ERROR(PackRows(source, row + nope, value, absorbed.value.back(), 0));
  }
  checkpoint_.Release(source);
  return absorbed;
}

absl::StatusOr<WeightLoader::Table> WeightLoader::Lookup(const std::string& name, size_t rows,
                                                         size_t width) const {
  EM_ASSIGN_OR_RETURN(const TensorView view, checkpoint_.Float(name, {rows, width}));
  const StoredMatrix source = PlainMatrix(view);
  const Dtype dtype = TableDtype(source);
  EM_ASSIGN_OR_RETURN(std::byte* const memory, Allocate(rows * width * DtypeBytes(dtype)));
  if (packed_ != nullptr) return Table{dtype, width, memory};
  std::vector<float> row(width);
  for (size_t r = 0; r < rows; ++r) {
    EM_RETURN_IF_ERROR(DecodeRows(source, r, 1, row.data()));
    if (dtype == Dtype::kF32) {
      std::memcpy(memory + r * width * sizeof(float), row.data(), width * sizeof(float));
      continue;
    }
    uint16_t* to = reinterpret_cast<uint16_t*>(memory) + r * width;
    for (size_t i = 0; i < width; ++i) to[i] = NarrowBf16(row[i]);
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
  std::vector<float> values(size);
  EM_RETURN_IF_ERROR(DecodeRows(PlainMatrix(view), 0, 1, values.data()));
  checkpoint_.Release(view);
  return values;
}

absl::StatusOr<std::vector<float>> WeightLoader::Flat(const std::string& name, size_t rows,
                                                      size_t columns) const {
  EM_ASSIGN_OR_RETURN(const TensorView view, checkpoint_.Float(name, {rows, columns}));
  std::vector<float> values(rows * columns);
  EM_RETURN_IF_ERROR(DecodeRows(PlainMatrix(view), 0, rows, values.data()));
  checkpoint_.Release(view);
  return values;
}

}  // namespace expertmesh::model

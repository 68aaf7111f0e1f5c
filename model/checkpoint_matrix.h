// Puts the tensors of one weight together: values, and the scales that stand beside them
// (docs/formats.md §7.6).
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "model/checkpoint.h"
#include "model/config_quantization.h"

namespace expertmesh::model {

/// Names under which the scales of "X.weight" may stand: "X.weight_scale_inv" and "X.scale" (fp8
/// and fp4), "X.weight_scale" (int8 and int4).
std::vector<std::string> ScaleNames(std::string_view name);

/// The matrix [rows, columns] of these two tensors; `scales` is nullptr if there is none. The type
/// of the values says which form it is; shapes and the type of the scales must fit it.
/// kBadCheckpoint naming file, tensor, expected and found otherwise.
absl::StatusOr<StoredMatrix> JoinMatrix(const TensorView& values, const TensorView* scales,
                                        uint64_t rows, uint64_t columns,
                                        const Quantization& quantization);

}  // namespace expertmesh::model

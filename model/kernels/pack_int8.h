// Rows of weights as int8 codes in groups of 32 with F16 scales (docs/model-family.md §3), and
// their place in a packed matrix (int8_layout.h).
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "model/formats/stored_matrix.h"
#include "model/kernels/packed_matrix.h"

namespace expertmesh::model {

/// Buffers of one row; kept between rows.
struct Int8Row {
  std::vector<int8_t> codes;     // [inputs]; E2M1 itself on its way to fp4
  std::vector<uint16_t> scales;  // [⌈inputs/32⌉] F16, to fp4 BF16
  std::vector<float> values;     // [inputs], where they had to be decoded
};

/// Row `row` of a stored matrix. int8 and int4 whose groups are whole multiples of 32 keep their
/// codes and scales; every other form is decoded and quantised (EncodeRows of int8). kBadCheckpoint
/// naming file and tensor: what DecodeRows refuses, and values that int8 cannot hold.
absl::Status ReadInt8Row(const StoredMatrix& from, uint64_t row, Int8Row& out);

/// What packed weights of the profile int8 have that form in the file: kInt4 or kFp4, which keep
/// their codes and scales, or kInt8.
Dtype Int8WeightDtype(const MatrixFormat& stored);

/// Row `row` of a matrix whose Int8WeightDtype is kInt4 or kFp4. kBadCheckpoint as DecodeRows, and
/// for an fp4 scale beyond 2^100.
absl::Status ReadFourBitRow(const StoredMatrix& from, uint64_t row, Int8Row& out);

/// The same as ReadInt8Row for values that are no row of a file; `from` is for messages.
absl::Status QuantiseInt8Row(const StoredMatrix& from, std::span<const float> values, Int8Row& out);

/// Puts the row where output `output` of `to` lies; to.inputs values.
void StoreInt8Row(const Int8Row& row, size_t output, PackedMatrix& to);

}  // namespace expertmesh::model

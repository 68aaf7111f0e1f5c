// A row as it travels to the routed experts, where nothing is sent too (docs/architecture.md §4,
// seam rounding).
#pragma once

#include <cstring>
#include <span>

#include "model/kernels/bf16.h"
#include "services/base/expert_batch.h"
#include "services/base/int8_row.h"

namespace expertmesh::model {

/// to [row.size()] of `wire`; returns the row's scale, which only kInt8Row has.
inline float ToWire(base::Dtype wire, std::span<const float> row, std::byte* to) {
  if (wire == base::Dtype::kInt8Row) {
    return base::QuantiseInt8Row(row, reinterpret_cast<int8_t*>(to));
  }
  if (wire == base::Dtype::kF32) {
    std::memcpy(to, row.data(), row.size_bytes());
  } else {
    auto* narrow = reinterpret_cast<uint16_t*>(to);
    for (size_t i = 0; i < row.size(); ++i) narrow[i] = NarrowBf16(row[i]);
  }
  return 0;
}

}  // namespace expertmesh::model

// Frames for tests of transports.
#pragma once

#include <cstdint>
#include <vector>

#include "services/transport/frame.h"

namespace expertmesh::transport {

/// `rows` rows of `hidden` times `value` in f32, each for expert 3 alone, with one partial each.
inline DispatchFrame UniformFrame(uint64_t call, float value, size_t rows, size_t hidden,
                                  BufferPool& pool) {
  const std::vector<float> data(rows * hidden, value);
  std::vector<uint32_t> index, offsets{0};
  std::vector<uint16_t> experts;
  std::vector<base::PartialNode> partials;
  for (uint32_t r = 0; r < rows; ++r) {
    index.push_back(r);
    experts.push_back(3);
    offsets.push_back(r + 1);
    partials.push_back({r, 0, 3});
  }
  DispatchHeader header;
  header.set_call_id(call);
  header.add_lane_row_counts(static_cast<uint32_t>(rows));
  header.add_lane_budgets_us(1u << 30);
  return BuildDispatch(header, data, hidden, index, base::Dtype::kF32, offsets, experts,
                       std::vector<float>(rows, 1.0f), partials, pool);
}

}  // namespace expertmesh::transport

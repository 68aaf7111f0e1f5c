// Which cache entries each row of a step attends to (docs/model-family.md §4.4, S(t)).
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace expertmesh::model {

/// Filled by a layer with an indexer, read by it and by the layers above without one.
struct Selection {
  size_t top = 0;                 // most entries of a row; 0 = dense attention
  std::vector<uint32_t> counts;   // [rows]; 0 = every entry up to the row's own
  std::vector<uint32_t> indices;  // [rows, top], places in the lane, ascending; the first `count`

  bool IsDense(size_t row) const { return top == 0 || counts[row] == 0; }
  std::span<const uint32_t> Of(size_t row) const {
    return std::span(indices).subspan(row * top, counts[row]);
  }
};

/// Places of the `top` largest of `scores`, 1 ≤ top ≤ scores.size(), equal ones by the lower place,
/// into out [top] in ascending order. False if a score is not a number. Three passes over the
/// scores, no sort; `candidates` is scratch.
bool SelectLargest(std::span<const float> scores, size_t top, std::vector<uint64_t>& candidates,
                   uint32_t* out);

}  // namespace expertmesh::model

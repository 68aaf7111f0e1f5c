// Nodes of the combine tree: a binary tree over global expert ids (docs/architecture.md §7,
// docs/model-family.md §5). Integers only; the sums are model/combine_tree.h.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace expertmesh::base {

/// One partial sum of one row: the tree node [first_expert, first_expert + 2^level) restricted to
/// the row's chosen experts. Its bytes are the wire format of docs/protocol.md §1.
struct PartialNode {
  uint32_t row = 0;
  uint16_t first_expert = 0;
  uint16_t level = 0;
  friend auto operator<=>(const PartialNode&, const PartialNode&) = default;
};
static_assert(sizeof(PartialNode) == 8);

/// Half-open range of global expert ids.
struct ExpertRange {
  uint32_t begin = 0;
  uint32_t end = 0;
  friend auto operator<=>(const ExpertRange&, const ExpertRange&) = default;
};

/// Smallest level whose root [0, 2^level) covers expert_count ids.
int RootLevel(uint32_t expert_count);
/// Experts per expert group: max(1, E/64) rounded to a power of two (docs/model-family.md §6).
uint32_t ExpertGroupSize(uint32_t expert_count);

/// Folds one row: appends, in ascending order, the maximal nodes all of whose chosen experts have
/// owner[i] == owner. `experts` are the row's chosen ids, strictly ascending; owner[i] is the pool
/// of experts[i].
void FoldRow(uint32_t row, std::span<const uint16_t> experts, std::span<const uint16_t> owners,
             uint16_t owner, uint32_t expert_count, std::vector<PartialNode>& out);

/// "0-15,24-31" → ranges, sorted and merged. Errors (kInvalidArgument) on syntax or ids ≥
/// expert_count.
absl::StatusOr<std::vector<ExpertRange>> ParseSlice(std::string_view text, uint32_t expert_count);
/// The inverse: "0-15,24-31"; one id is "7".
std::string SliceName(std::span<const ExpertRange> ranges);
/// The ids of ranges that are not in `hosted`, merged; both sorted.
std::vector<ExpertRange> MissingFrom(std::span<const ExpertRange> hosted, uint32_t expert_count);
/// N pools of aligned powers of two: split the largest node, the last of equals, until there are N
/// (docs/model-family.md §6; 3 pools of 32 experts are 0-15, 16-23, 24-31).
absl::StatusOr<std::vector<ExpertRange>> CutSlices(uint32_t expert_count, uint32_t pool_count);

}  // namespace expertmesh::base

// The combine tree: a token's sum over its experts, defined once (docs/architecture.md §7,
// docs/model-family.md §5). A binary tree over global expert ids, split at the middle of a
// power-of-two range; an absent side is skipped, never added as 0. Any cut of the experts into
// slices gives the same bits.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "services/base/expert_node.h"

namespace expertmesh::model {

/// out [out.size()] = the value of `root` restricted to `nodes`: disjoint tree nodes inside root,
/// ascending by first_expert (a leaf is a node of level 0), sums[i] [out.size()] the value of
/// nodes[i]. Rows of the nodes are not read. Nothing is written if nodes is empty. Pure; any
/// thread.
void SumTree(std::span<const base::PartialNode> nodes, const float* const* sums,
             const base::PartialNode& root, std::span<float> out);

/// The whole row: SumTree at the root of `expert_count` experts. What a dispatcher does with the
/// partial sums of one row that came from all pools.
void FinishTree(std::span<const base::PartialNode> nodes, const float* const* sums,
                uint32_t expert_count, std::span<float> out);

}  // namespace expertmesh::model

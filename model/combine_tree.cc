#include "model/combine_tree.h"

#include <algorithm>
#include <cstring>

namespace expertmesh::model {
namespace {

constexpr size_t kBlock = 256;    // elements summed at a time, so that scratch stays in cache
constexpr size_t kDepthMax = 17;  // a u16 id has at most 16 levels below the root

using Nodes = std::span<const base::PartialNode>;

// One block of elements of one row.
struct Block {
  size_t offset;
  size_t size;
  alignas(64) float scratch[kDepthMax][kBlock];

  // Pointer to the sum of `nodes` inside [first, first + 2^level); may be a caller's vector.
  const float* Sum(Nodes nodes, const float* const* sums, uint32_t first, int level, size_t depth) {
    if (nodes.size() == 1) return sums[0] + offset;
    const uint32_t middle = first + (1u << (level - 1));
    const auto split =
        static_cast<size_t>(std::lower_bound(nodes.begin(), nodes.end(), middle,
                                             [](const base::PartialNode& n, uint32_t id) {
                                               return n.first_expert < id;
                                             }) -
                            nodes.begin());
    if (split == 0) return Sum(nodes, sums, middle, level - 1, depth);
    if (split == nodes.size()) return Sum(nodes, sums, first, level - 1, depth);
    const float* left = Sum(nodes.first(split), sums, first, level - 1, depth);
    const float* right = Sum(nodes.subspan(split), sums + split, middle, level - 1, depth + 1);
    float* out = scratch[depth];
    for (size_t i = 0; i < size; ++i) out[i] = left[i] + right[i];
    return out;
  }
};

}  // namespace

void SumTree(Nodes nodes, const float* const* sums, const base::PartialNode& root,
             std::span<float> out) {
  if (nodes.empty()) return;
  Block block;
  for (size_t offset = 0; offset < out.size(); offset += kBlock) {
    block.offset = offset;
    block.size = std::min(kBlock, out.size() - offset);
    const float* sum = block.Sum(nodes, sums, root.first_expert, root.level, 0);
    std::memcpy(out.data() + offset, sum, block.size * sizeof(float));
  }
}

void FinishTree(Nodes nodes, const float* const* sums, uint32_t expert_count,
                std::span<float> out) {
  const auto level = static_cast<uint16_t>(base::RootLevel(expert_count));
  SumTree(nodes, sums, {0, 0, level}, out);
}

}  // namespace expertmesh::model

// What a forward pass computed inside, layer by layer, for comparison with goldens
// (tests/parity/README.md). Filled only when asked for.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace expertmesh::model {

/// One entry per layer. Rows are the rows of the pass, in order.
struct Trace {
  struct Layer {
    std::vector<float> residual;  // [rows, streams·hidden], after the layer, before the final norm
    std::vector<uint16_t> expert_ids;   // [rows, top_k], ascending; empty for a dense layer
    std::vector<float> expert_weights;  // [rows, top_k], normalised and scaled
    /// [rows, index_topk], absolute and ascending, −1 behind the last; empty for a layer without an
    /// indexer of its own.
    std::vector<int32_t> positions;
    std::vector<uint32_t> attended;  // [rows], cache rows that attention read
  };
  std::vector<Layer> layers;
};

}  // namespace expertmesh::model

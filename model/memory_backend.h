// Where rows of the memory's tables come from (docs/model-family.md §4.0): the checkpoint itself,
// or a store over a transport. The counterpart of ExpertBackend.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace expertmesh::model {

/// The rows that one step needs in all Engram layers, named before the first layer runs. Spans live
/// until the Finish of the last layer returns.
struct MemoryCall {
  size_t row_count = 0;  // tokens of the step
  size_t columns = 0;    // table rows per token and layer
  size_t width = 0;      // elements of a table row
  struct Layer {
    uint32_t layer = 0;                 // of the model
    std::span<const uint64_t> row_ids;  // [row_count, columns]
  };
  std::vector<Layer> layers;  // in ascending order
};

/// Called on the engine thread: Begin, then Finish for every layer of the call in its order, then
/// Begin again.
class MemoryBackend {
 public:
  virtual ~MemoryBackend() = default;
  virtual void Begin(const MemoryCall& call) = 0;
  /// Blocks until the rows of that layer are there or failed. out [row_count, columns · width] in
  /// f32; a failed token gets alive[row] = 0 and its out is not read. Dead tokens may be skipped.
  virtual void Finish(uint32_t layer, std::span<float> out, std::span<uint8_t> alive) = 0;
};

}  // namespace expertmesh::model

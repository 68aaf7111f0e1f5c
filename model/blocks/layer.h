// One transformer layer's weights: memory, attention, then a dense or a mixture-of-experts
// feed-forward (docs/formats.md §1.1, docs/model-family.md §4.3). The routed experts and the tables
// of the memory are not here: they are behind ExpertBackend and MemoryBackend.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "absl/status/statusor.h"
#include "model/blocks/engram.h"
#include "model/blocks/gate.h"
#include "model/blocks/hyper_connection.h"
#include "model/blocks/indexer.h"
#include "model/blocks/mla.h"
#include "model/blocks/swiglu.h"
#include "model/config.h"
#include "model/weight_loader.h"

namespace expertmesh::model {

/// Immutable after Load.
struct Layer {
  std::vector<float> input_norm;                   // input_layernorm [hidden]
  std::optional<Engram> memory;                    // in engram_layer_ids
  std::optional<HyperConnection> attention_mixes;  // with several streams, as ffn_mixes
  std::optional<HyperConnection> ffn_mixes;
  Mla attention;
  std::optional<Indexer> indexer;          // in layers with one of their own
  std::vector<float> post_attention_norm;  // post_attention_layernorm [hidden]
  std::optional<SwiGlu> dense;             // below first_k_dense_replace
  std::optional<Gate> gate;                // from there on
  std::optional<SwiGlu> shared;            // if n_shared_experts > 0

  static absl::StatusOr<Layer> Load(const WeightLoader& loader, const Config& config,
                                    uint32_t layer, bool masked_gate_group_zero);
};

}  // namespace expertmesh::model

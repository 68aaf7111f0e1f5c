// One transformer layer's weights: attention, then a dense or a mixture-of-experts feed-forward
// (docs/formats.md §1.1). The routed experts are not here: they are behind ExpertBackend.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "absl/status/statusor.h"
#include "model/blocks/gate.h"
#include "model/blocks/mla.h"
#include "model/blocks/swiglu.h"
#include "model/config.h"
#include "model/weight_loader.h"

namespace expertmesh::model {

/// Immutable after Load.
struct Layer {
  std::vector<float> input_norm;  // input_layernorm [hidden]
  Mla attention;
  std::vector<float> post_attention_norm;  // post_attention_layernorm [hidden]
  std::optional<SwiGlu> dense;             // below first_k_dense_replace
  std::optional<Gate> gate;                // from there on
  std::optional<SwiGlu> shared;            // if n_shared_experts > 0

  static absl::StatusOr<Layer> Load(const WeightLoader& loader, const Config& config,
                                    uint32_t layer, bool masked_gate_group_zero);
};

}  // namespace expertmesh::model

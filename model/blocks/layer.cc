#include "model/blocks/layer.h"

#include <algorithm>
#include <string>

#include "absl/strings/str_cat.h"
#include "services/base/status.h"

namespace expertmesh::model {

namespace {

// What only some families have: memory, several streams, an indexer.
absl::Status LoadOptional(const WeightLoader& loader, const Config& config, uint32_t layer,
                          Layer& l) {
  const std::string prefix = absl::StrCat("model.layers.", layer, ".");
  if (config.EngramPlace(layer)) {
    EM_ASSIGN_OR_RETURN(l.memory, Engram::Load(loader, config, layer));
  }
  if (config.hc_mult > 1) {
    EM_ASSIGN_OR_RETURN(l.attention_mixes,
                        HyperConnection::Load(loader, config, prefix + "attn_hc."));
    EM_ASSIGN_OR_RETURN(l.ffn_mixes, HyperConnection::Load(loader, config, prefix + "ffn_hc."));
  }
  if (config.HasOwnIndexer(layer)) {
    const auto& full = config.indexer->full;
    const auto slot = std::count(full.begin(), full.begin() + layer, true);
    EM_ASSIGN_OR_RETURN(l.indexer,
                        Indexer::Load(loader, config, layer, static_cast<uint32_t>(slot)));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<Layer> Layer::Load(const WeightLoader& loader, const Config& config, uint32_t layer,
                                  bool masked_gate_group_zero) {
  const std::string prefix = absl::StrCat("model.layers.", layer, ".");
  const size_t hidden = config.hidden_size;
  Layer l;
  EM_ASSIGN_OR_RETURN(l.input_norm,
                      loader.Vector(absl::StrCat(prefix, "input_layernorm.weight"), hidden));
  EM_ASSIGN_OR_RETURN(l.attention, Mla::Load(loader, config, layer));
  EM_ASSIGN_OR_RETURN(
      l.post_attention_norm,
      loader.Vector(absl::StrCat(prefix, "post_attention_layernorm.weight"), hidden));
  EM_RETURN_IF_ERROR(LoadOptional(loader, config, layer, l));
  if (!config.IsMoeLayer(layer)) {
    EM_ASSIGN_OR_RETURN(l.dense, SwiGlu::Load(loader, absl::StrCat(prefix, "mlp."), hidden,
                                              config.intermediate_size));
    return l;
  }
  EM_ASSIGN_OR_RETURN(l.gate, Gate::Load(loader, config, layer, masked_gate_group_zero));
  if (config.n_shared_experts > 0) {
    EM_ASSIGN_OR_RETURN(
        l.shared, SwiGlu::Load(loader, absl::StrCat(prefix, "mlp.shared_experts."), hidden,
                               size_t{config.n_shared_experts} * config.moe_intermediate_size));
  }
  return l;
}

}  // namespace expertmesh::model

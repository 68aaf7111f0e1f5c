// The gate: which experts a token goes to, and with what weight (`noaux_tc`, docs/formats.md §1.6).
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "absl/status/statusor.h"
#include "model/config.h"
#include "model/kernels/linear.h"
#include "model/weight_loader.h"

namespace expertmesh::model {

/// How experts are chosen; a copy of the config's keys.
struct GateRule {
  size_t experts = 0;
  size_t top_k = 0;
  size_t groups = 1;         // gate groups of consecutive experts (n_group)
  size_t kept_groups = 1;    // topk_group
  bool masked_zero = false;  // a masked group's scores become 0.0 (transformers) instead of −inf
  bool normalise = true;     // norm_topk_prob
  float factor = 1.0f;       // routed_scaling_factor
};

/// Chooses from the raw scores z [experts] of one row; `bias` [experts] counts in the choice only.
/// Writes ids and weights [top_k], ids ascending. `forced`, if not empty, replaces the choice.
/// False if a score is not a number or the forced ids are not top_k distinct experts.
bool SelectExperts(const GateRule& rule, const float* z, const float* bias,
                   std::span<const uint16_t> forced, uint16_t* ids, float* weights);

/// The gate of one layer; float32 in every profile. Immutable after Load.
struct Gate {
  GateRule rule;
  PackedMatrix weight;      // [experts, hidden], as stored
  std::vector<float> bias;  // e_score_correction_bias [experts]

  static absl::StatusOr<Gate> Load(const WeightLoader& loader, const Config& config, uint32_t layer,
                                   bool masked_zero);
};

}  // namespace expertmesh::model

// The model as docs/formats.md §1 writes it: naive attention (keys and values of every head, one
// softmax), one token after another, float32, no cache, no batching. Slow; the fast runtime is
// tested against it.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "model/checkpoint.h"
#include "model/config.h"
#include "model/trace.h"

namespace expertmesh::model {

/// Immutable after Load.
class ReferenceModel {
 public:
  /// `masked_gate_group_zero`: as AttentionModel::Options.
  static absl::StatusOr<std::unique_ptr<ReferenceModel>> Load(const std::string& directory,
                                                              bool masked_gate_group_zero = false);

  /// Logits [tokens, vocab] of one sequence whose first token is at `first_position`. The expert
  /// sum is the combine tree. Weights must have the shapes of TensorSpecs (Load checks them).
  /// `trace`, if given, is overwritten with what every layer computed.
  std::vector<float> Forward(std::span<const uint32_t> tokens, Trace* trace = nullptr,
                             uint64_t first_position = 0) const;

  const Config& config() const { return config_; }

 private:
  using Rows = std::vector<std::vector<float>>;  // one vector per token

  ReferenceModel() = default;
  std::vector<float> Weight(const std::string& name) const;
  Rows Attention(uint32_t layer, const Rows& x, uint64_t first_position) const;
  std::vector<float> MixtureOfExperts(uint32_t layer, const std::vector<float>& x,
                                      Trace::Layer* trace) const;

  Config config_;
  bool masked_gate_group_zero_ = false;
  std::unique_ptr<Checkpoint> checkpoint_;
  std::map<std::string, StoredMatrix> weights_;  // views into the checkpoint, decoded on use
};

}  // namespace expertmesh::model

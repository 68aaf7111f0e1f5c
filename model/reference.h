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

namespace expertmesh::model {

/// Immutable after Load.
class ReferenceModel {
 public:
  static absl::StatusOr<std::unique_ptr<ReferenceModel>> Load(const std::string& directory);

  /// Logits [tokens, vocab] of one sequence whose first token is at position 0. The expert sum is
  /// the combine tree. Weights must have the shapes of TensorSpecs (Load checks them).
  std::vector<float> Forward(std::span<const uint32_t> tokens) const;

  const Config& config() const { return config_; }

 private:
  using Rows = std::vector<std::vector<float>>;  // one vector per token

  ReferenceModel() = default;
  std::vector<float> Weight(const std::string& name) const;
  Rows Attention(uint32_t layer, const Rows& x) const;
  std::vector<float> MixtureOfExperts(uint32_t layer, const std::vector<float>& x) const;

  Config config_;
  std::unique_ptr<Checkpoint> checkpoint_;
  std::map<std::string, StoredMatrix> weights_;  // views into the checkpoint, decoded on use
};

}  // namespace expertmesh::model

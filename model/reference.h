// The model as docs/formats.md §1–2 and docs/model-family.md §4 write it: naive attention (keys and
// values of every head, one softmax), one token after another, float32, no cache, no batching.
// Slow; the fast runtime is tested against it. reference_attention.cc, reference_streams.cc and
// reference_memory.cc hold a block each.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "model/checkpoint.h"
#include "model/config.h"
#include "model/reference_streams.h"
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
  using Rows = std::vector<std::vector<float>>;         // one vector per token
  using Selections = std::vector<std::vector<size_t>>;  // S(t) of every token, ascending

  ReferenceModel() = default;
  std::vector<float> Weight(const std::string& name) const;
  Rows Attention(uint32_t layer, const Rows& x, uint64_t first_position,
                 Selections& selections) const;
  Selections Select(uint32_t layer, const Rows& x, const Rows& latents,
                    uint64_t first_position) const;
  std::vector<int32_t> Positions(const Selections& selections, uint64_t first_position) const;
  std::vector<uint64_t> MemoryRows(uint32_t layer, std::span<const uint32_t> tokens,
                                   size_t t) const;
  void AddMemory(uint32_t layer, std::span<const uint32_t> tokens, size_t t,
                 std::vector<float>& x) const;
  reference::MixRule rule() const;
  reference::MixWeights Mixer(const std::string& fn, const std::string& base,
                              const std::string& scale) const;
  void AddSublayer(const std::string& mixes, const std::string& norm, Rows& streams,
                   const std::function<Rows(const Rows&)>& block) const;
  std::vector<float> MixtureOfExperts(uint32_t layer, const std::vector<float>& x,
                                      Trace::Layer* trace) const;
  std::vector<float> FeedForward(uint32_t layer, const std::vector<float>& x,
                                 Trace::Layer* trace) const;
  std::vector<float> Logits(const Rows& streams) const;

  Config config_;
  bool masked_gate_group_zero_ = false;
  std::unique_ptr<Checkpoint> checkpoint_;
  std::map<std::string, StoredMatrix> weights_;  // views into the checkpoint, decoded on use
  std::map<std::string, std::vector<int64_t>> integers_;  // EngramHashSpecs
};

}  // namespace expertmesh::model

// Runs the sequence of a golden through one of our ways of computing it.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "model/expert_slice.h"
#include "model/reference.h"
#include "model/runtime.h"
#include "tests/parity/golden.h"

namespace expertmesh::parity {

/// The same as a golden holds, of ours.
struct Observed {
  std::vector<float> logits;                         // [T, V]
  std::map<uint32_t, std::vector<float>> hidden;     // layer → [T, width]
  std::map<uint32_t, std::vector<int32_t>> experts;  // MoE layer → [T, k], ascending
  std::map<uint32_t, std::vector<int32_t>> positions;  // indexer layer → [T, K], −1 behind the last
};

/// The naive reference, all tokens at once.
Observed RunReference(const model::ReferenceModel& model, const Sequence& sequence);

/// The fast runtime with all experts in process.
class FastRunner {
 public:
  /// Fails the process with the error's text if the directory does not load.
  FastRunner(const Golden& golden, const std::string& profile);

  /// The golden's own tokens: the prompt in chunks of `chunk` tokens, then one a step. With
  /// `forced`, the golden's selections replace those of the gate.
  Observed Run(const Sequence& sequence, size_t chunk, bool forced = false) const;

  /// Prompt, then `steps` greedy tokens of our own. `logits`: those that chose them [steps, V].
  struct Greedy {
    std::vector<uint32_t> tokens;
    std::vector<float> logits;
  };
  Greedy Generate(std::span<const uint32_t> prompt, uint64_t start_position, size_t steps) const;

  const model::AttentionModel& model() const { return *model_; }

 private:
  std::unique_ptr<model::AttentionModel> model_;
  std::unique_ptr<model::ExpertSlice> experts_;
};

}  // namespace expertmesh::parity

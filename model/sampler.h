// Counter-based sampler (invariant 6): the token is a pure function of (logits, parameters, u), and
// u = Philox(seed, choice, position, purpose). No state, so a replay draws the same.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace expertmesh::model {

/// temperature 0 = greedy (lowest id wins ties). Order: temperature, top-k, top-p; ties by
/// (probability descending, id ascending). `top_k` 0 = all; `top_p` in (0, 1].
struct SamplingParams {
  float temperature = 1.0f;
  uint32_t top_k = 0;
  float top_p = 1.0f;
};

struct SampledToken {
  uint32_t id = 0;
  float logprob = 0;  // ln p under the unmodified logits
};

/// A uniform number in [0, 1): 24 bits of Philox(seed; choice, position, purpose 0).
float UniformOf(uint64_t seed, uint32_t choice, uint64_t position);

/// `masked` marks ids that may never be chosen (placeholders); empty = none. NaN logits give id =
/// -1u.
SampledToken Sample(std::span<const float> logits, const SamplingParams& params, float uniform,
                    const std::vector<bool>& masked);

}  // namespace expertmesh::model

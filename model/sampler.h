// Counter-based sampler (invariant 6): the token is a pure function of (logits, parameters, u), and
// u = Philox(seed, choice, position, purpose). No state, so a replay draws the same.
#pragma once

#include <cstdint>
#include <span>
#include <utility>
#include <vector>

namespace expertmesh::model {

/// temperature 0 = greedy (lowest id wins ties). Order: penalties and biases (AdjustLogits),
/// temperature, top-k, top-p, min-p; ties by (probability descending, id ascending). `top_k` 0 =
/// all; `top_p` in (0, 1]; `min_p` in [0, 1]: least share of the likeliest token's probability.
struct SamplingParams {
  float temperature = 1.0f;
  uint32_t top_k = 0;
  float top_p = 1.0f;
  float min_p = 0.0f;
  float presence_penalty = 0.0f;   // off the logit of a token that was generated
  float frequency_penalty = 0.0f;  // the same for every time it was
  float repetition_penalty =
      1.0f;  // of prompt and answer: divides logits above 0, multiplies others
  std::vector<std::pair<uint32_t, float>> logit_bias = {};  // token → added to its logit

  /// Whether AdjustLogits changes anything.
  bool adjusts() const;
};

struct SampledToken {
  uint32_t id = 0;
  float logprob = 0;  // ln p under the unmodified logits
};

/// A token and ln of its probability under the unmodified logits.
using TokenLogprob = SampledToken;

/// A uniform number in [0, 1): 24 bits of Philox(seed; choice, position, purpose 0).
float UniformOf(uint64_t seed, uint32_t choice, uint64_t position);

/// Penalties for the tokens that stand there already, then biases, into `logits`. Each logit is
/// changed by a formula of its own, so the result depends on no order.
void AdjustLogits(std::span<float> logits, const SamplingParams& params,
                  std::span<const uint32_t> prompt, std::span<const uint32_t> generated);

/// The `count` likeliest tokens, likeliest first, equal ones by id; for the `top_logprobs` of an
/// answer.
std::vector<TokenLogprob> LikeliestTokens(std::span<const float> logits, size_t count);

/// ln p of a token under these logits; NaN where Sample would give no token for them.
float LogprobOf(std::span<const float> logits, uint32_t id);

/// `masked` marks ids that may never be chosen (placeholders); empty = none. NaN logits give id =
/// -1u.
SampledToken Sample(std::span<const float> logits, const SamplingParams& params, float uniform,
                    const std::vector<bool>& masked);

}  // namespace expertmesh::model

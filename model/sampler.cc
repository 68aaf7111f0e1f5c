#include "model/sampler.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <unordered_map>

#include "model/kernels/kernel_table.h"
#include "model/kernels/math.h"
#include "services/base/random.h"

namespace expertmesh::model {
namespace {

constexpr SampledToken kNoToken{UINT32_MAX, 0.0f};

struct Candidate {
  float weight;  // e^((logit − max) / temperature)
  uint32_t id;
};

// Heap order: the likeliest candidate, of equals the lowest id, is on top.
bool Below(const Candidate& a, const Candidate& b) {
  return a.weight != b.weight ? a.weight < b.weight : a.id > b.id;
}

struct Extent {
  float maximum = 0;           // of all logits; NaN if one is
  uint32_t best = UINT32_MAX;  // lowest allowed id with the largest logit
};

bool IsMasked(const std::vector<bool>& masked, uint32_t id) {
  return id < masked.size() && masked[id];
}

Extent ExtentOf(std::span<const float> logits, const std::vector<bool>& masked) {
  Extent extent;
  extent.maximum = FastestKernels().largest(logits.data(), logits.size());
  if (std::isnan(extent.maximum)) return extent;
  const auto first = std::find(logits.begin(), logits.end(), extent.maximum);
  extent.best = static_cast<uint32_t>(first - logits.begin());
  if (!IsMasked(masked, extent.best)) return extent;
  extent.best = UINT32_MAX;
  for (uint32_t id = 0; id < logits.size(); ++id) {
    if (IsMasked(masked, id)) continue;
    if (extent.best == UINT32_MAX || logits[id] > logits[extent.best]) extent.best = id;
  }
  return extent;
}

// e^((logit − top) / temperature) of every token, until this thread asks again.
struct Weights {
  std::span<const float> each;
  double sum;
};

Weights WeightsOver(std::span<const float> logits, float top, float temperature = 1.0f) {
  thread_local std::vector<float> weights;
  weights.resize(logits.size());
  const double sum =
      FastestKernels().exp_weights(logits.data(), top, temperature, logits.size(), weights.data());
  return {weights, sum};
}

float LogProb(std::span<const float> logits, float maximum, double weight, uint32_t id) {
  return static_cast<float>(static_cast<double>(logits[id]) - maximum - Log64(weight));
}

// Keeps what has at least min_p of the likeliest candidate's weight. Returns the kept weight.
double DropUnlikely(std::vector<Candidate>& candidates, float min_p) {
  float best = 0;
  for (const Candidate& c : candidates) best = std::max(best, c.weight);
  std::erase_if(candidates, [&](const Candidate& c) { return c.weight < min_p * best; });
  double kept = 0;
  for (const Candidate& c : candidates) kept += c.weight;
  return kept;
}

// The first candidate at which the running sum exceeds u · total; the last one if rounding leaves a
// gap.
uint32_t Draw(const std::vector<Candidate>& candidates, double total, float uniform) {
  const double target = static_cast<double>(uniform) * total;
  double running = 0;
  uint32_t last = candidates.front().id;
  for (const Candidate& c : candidates) {
    if (c.weight <= 0) continue;
    running += c.weight;
    last = c.id;
    if (running > target) break;
  }
  return last;
}

// Keeps the top_k likeliest and of those the shortest prefix that holds top_p of their weight,
// likeliest first. Returns the kept weight.
double Truncate(std::vector<Candidate>& candidates, const SamplingParams& params, double total) {
  std::make_heap(candidates.begin(), candidates.end(), Below);
  std::vector<Candidate> kept;
  auto end = candidates.end();
  const auto pop = [&] {
    std::pop_heap(candidates.begin(), end--, Below);
    kept.push_back(*end);
  };
  const size_t limit =
      params.top_k > 0 ? std::min<size_t>(params.top_k, candidates.size()) : candidates.size();
  double running = 0;
  const double wanted_of_all = params.top_p * total;
  while (kept.size() < limit && (kept.empty() || params.top_k > 0 || running < wanted_of_all)) {
    pop();
    running += kept.back().weight;
  }
  if (params.top_k > 0) {  // top_p is a share of what top_k left
    const double wanted = params.top_p * running;
    size_t count = 0;
    running = 0;
    while (count == 0 || (count < kept.size() && running < wanted)) running += kept[count++].weight;
    kept.resize(count);
  }
  candidates = std::move(kept);
  return running;
}

}  // namespace

bool SamplingParams::adjusts() const {
  return presence_penalty != 0 || frequency_penalty != 0 || repetition_penalty != 1 ||
         !logit_bias.empty();
}

void AdjustLogits(std::span<float> logits, const SamplingParams& params,
                  std::span<const uint32_t> prompt, std::span<const uint32_t> generated) {
  std::unordered_map<uint32_t, uint32_t> times;  // 0 for a token of the prompt alone
  if (params.repetition_penalty != 1) {
    for (const uint32_t id : prompt) times.try_emplace(id, 0);
  }
  for (const uint32_t id : generated) ++times[id];
  for (const auto& [id, count] : times) {
    float& logit = logits[id];
    if (params.repetition_penalty != 1) {
      logit = logit > 0 ? logit / params.repetition_penalty : logit * params.repetition_penalty;
    }
    if (count == 0) continue;
    logit -= params.frequency_penalty * static_cast<float>(count);
    logit -= params.presence_penalty;
  }
  for (const auto& [id, bias] : params.logit_bias) logits[id] += bias;
}

std::vector<TokenLogprob> LikeliestTokens(std::span<const float> logits, size_t count) {
  std::vector<uint32_t> ids(logits.size());
  std::iota(ids.begin(), ids.end(), 0u);
  const size_t kept = std::min(count, ids.size());
  std::partial_sort(ids.begin(), ids.begin() + static_cast<std::ptrdiff_t>(kept), ids.end(),
                    [&](uint32_t a, uint32_t b) {
                      return logits[a] != logits[b] ? logits[a] > logits[b] : a < b;
                    });
  const float maximum = *std::max_element(logits.begin(), logits.end());
  const double total = WeightsOver(logits, maximum).sum;
  std::vector<TokenLogprob> likeliest;
  for (size_t i = 0; i < kept; ++i) {
    likeliest.push_back({ids[i], LogProb(logits, maximum, total, ids[i])});
  }
  return likeliest;
}

float LogprobOf(std::span<const float> logits, uint32_t id) {
  const float maximum = FastestKernels().largest(logits.data(), logits.size());
  if (!std::isfinite(maximum)) return std::nanf("");
  return LogProb(logits, maximum, WeightsOver(logits, maximum).sum, id);
}

float UniformOf(uint64_t seed, uint32_t choice, uint64_t position) {
  constexpr uint32_t kPurposeToken = 0;
  const auto block = base::Philox({static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32)},
                                  {choice, static_cast<uint32_t>(position),
                                   static_cast<uint32_t>(position >> 32), kPurposeToken});
  return static_cast<float>(block[0] >> 8) * 0x1p-24f;
}

SampledToken Sample(std::span<const float> logits, const SamplingParams& params, float uniform,
                    const std::vector<bool>& masked) {
  const Extent extent = ExtentOf(logits, masked);
  if (extent.best == UINT32_MAX) return kNoToken;
  if (!std::isfinite(extent.maximum) || !std::isfinite(logits[extent.best])) return kNoToken;
  uint32_t id = extent.best;
  if (params.temperature > 0) {
    const float top = logits[extent.best];
    std::vector<Candidate> candidates;
    candidates.reserve(logits.size());
    const std::span<const float> weights = WeightsOver(logits, top, params.temperature).each;
    double total = 0;
    for (uint32_t i = 0; i < logits.size(); ++i) {
      if (IsMasked(masked, i)) continue;
      candidates.push_back({weights[i], i});
      total += weights[i];
    }
    if (params.top_k > 0 || params.top_p < 1.0f) total = Truncate(candidates, params, total);
    if (params.min_p > 0) total = DropUnlikely(candidates, params.min_p);
    id = Draw(candidates, total, uniform);
  }
  return {id, LogProb(logits, extent.maximum, WeightsOver(logits, extent.maximum).sum, id)};
}

}  // namespace expertmesh::model

#include "model/sampler.h"

#include <algorithm>
#include <cmath>

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
  bool nan = false;
  float maximum = 0;           // of all logits
  uint32_t best = UINT32_MAX;  // lowest allowed id with the largest logit
};

Extent ExtentOf(std::span<const float> logits, const std::vector<bool>& masked) {
  Extent extent;
  for (uint32_t id = 0; id < logits.size(); ++id) {
    if (std::isnan(logits[id])) extent.nan = true;
    if (id == 0 || logits[id] > extent.maximum) extent.maximum = logits[id];
    if (id < masked.size() && masked[id]) continue;
    if (extent.best == UINT32_MAX || logits[id] > logits[extent.best]) extent.best = id;
  }
  return extent;
}

// ln p of one id under the unmodified logits; sums in float64 in ascending id order.
float LogProb(std::span<const float> logits, float maximum, uint32_t id) {
  double sum = 0;
  for (const float logit : logits) sum += Exp(logit - maximum);
  return static_cast<float>(static_cast<double>(logits[id]) - maximum - Log64(sum));
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
  if (extent.nan || extent.best == UINT32_MAX) return kNoToken;
  if (!std::isfinite(extent.maximum) || !std::isfinite(logits[extent.best])) return kNoToken;
  uint32_t id = extent.best;
  if (params.temperature > 0) {
    const float top = logits[extent.best];
    std::vector<Candidate> candidates;
    candidates.reserve(logits.size());
    double total = 0;
    for (uint32_t i = 0; i < logits.size(); ++i) {
      if (i < masked.size() && masked[i]) continue;
      candidates.push_back({Exp((logits[i] - top) / params.temperature), i});
      total += candidates.back().weight;
    }
    if (params.top_k > 0 || params.top_p < 1.0f) total = Truncate(candidates, params, total);
    id = Draw(candidates, total, uniform);
  }
  return {id, LogProb(logits, extent.maximum, id)};
}

}  // namespace expertmesh::model

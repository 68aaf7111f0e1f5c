#include "model/blocks/gate.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "absl/strings/str_cat.h"
#include "model/kernels/math.h"
#include "services/base/status.h"

namespace expertmesh::model {
namespace {

// The `count` largest of scores: score descending, index ascending.
std::vector<uint16_t> Largest(const std::vector<float>& scores, size_t count) {
  std::vector<uint16_t> order(scores.size());
  for (size_t i = 0; i < order.size(); ++i) order[i] = static_cast<uint16_t>(i);
  std::partial_sort(order.begin(), order.begin() + static_cast<std::ptrdiff_t>(count), order.end(),
                    [&](uint16_t a, uint16_t b) {
                      return scores[a] != scores[b] ? scores[a] > scores[b] : a < b;
                    });
  order.resize(count);
  return order;
}

// A group's score: the sum of its two largest.
float GroupScore(const float* scores, size_t size) {
  float first = scores[0];
  float second = -std::numeric_limits<float>::infinity();
  for (size_t i = 1; i < size; ++i) {
    if (scores[i] > first) {
      second = first;
      first = scores[i];
    } else if (scores[i] > second) {
      second = scores[i];
    }
  }
  return size == 1 ? first : first + second;
}

void MaskGroups(const GateRule& rule, std::vector<float>& scores) {
  if (rule.groups <= 1) return;
  const size_t size = rule.experts / rule.groups;
  std::vector<float> totals(rule.groups);
  for (size_t g = 0; g < rule.groups; ++g)
    totals[g] = GroupScore(scores.data() + g * size, size) + 0.0f;
  std::vector<bool> kept(rule.groups, false);
  for (const uint16_t g : Largest(totals, std::min(rule.kept_groups, rule.groups))) kept[g] = true;
  const float masked = rule.masked_zero ? 0.0f : -std::numeric_limits<float>::infinity();
  for (size_t e = 0; e < rule.experts; ++e) {
    if (!kept[e / size]) scores[e] = masked;
  }
}

bool Distinct(std::span<const uint16_t> ascending, size_t experts) {
  for (size_t i = 0; i < ascending.size(); ++i) {
    if (ascending[i] >= experts || (i > 0 && ascending[i] == ascending[i - 1])) return false;
  }
  return true;
}

}  // namespace

bool SelectExperts(const GateRule& rule, const float* z, const float* bias,
                   std::span<const uint16_t> forced, uint16_t* ids, float* weights) {
  std::vector<float> scores(rule.experts);
  for (size_t e = 0; e < rule.experts; ++e) {
    scores[e] = (Sigmoid(z[e]) + bias[e]) + 0.0f;  // −0 becomes +0
    if (std::isnan(scores[e])) return false;
  }
  std::vector<uint16_t> chosen(forced.begin(), forced.end());
  if (chosen.empty()) {
    MaskGroups(rule, scores);
    chosen = Largest(scores, rule.top_k);
  }
  std::sort(chosen.begin(), chosen.end());
  if (chosen.size() != rule.top_k || !Distinct(chosen, rule.experts)) return false;
  float sum = 0.0f;
  for (size_t i = 0; i < rule.top_k; ++i) {
    ids[i] = chosen[i];
    weights[i] = Sigmoid(z[chosen[i]]);
    sum += weights[i];
  }
  for (size_t i = 0; i < rule.top_k; ++i) {
    if (rule.normalise) weights[i] /= sum + 1e-20f;
    weights[i] *= rule.factor;
  }
  return true;
}

absl::StatusOr<Gate> Gate::Load(const WeightLoader& loader, const Config& config, uint32_t layer,
                                bool masked_zero) {
  const std::string prefix = absl::StrCat("model.layers.", layer, ".mlp.gate.");
  Gate gate;
  gate.rule = {config.n_routed_experts,
               config.num_experts_per_tok,
               config.n_group,
               config.topk_group,
               masked_zero,
               config.norm_topk_prob,
               config.routed_scaling_factor};
  EM_ASSIGN_OR_RETURN(
      gate.weight, loader.UnroundedMatrix(absl::StrCat(prefix, "weight"), config.n_routed_experts,
                                          config.hidden_size));
  EM_ASSIGN_OR_RETURN(gate.bias, loader.Vector(absl::StrCat(prefix, "e_score_correction_bias"),
                                               config.n_routed_experts));
  return gate;
}

}  // namespace expertmesh::model

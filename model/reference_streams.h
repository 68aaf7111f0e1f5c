// Several residual streams as docs/model-family.md §4.2, §4.3 and §4.7 write them, for one token.
#pragma once

#include <cstddef>
#include <vector>

namespace expertmesh::model::reference {

/// Weights of the mixes of one sublayer, or of the head (fn [n, n·D], base [n], scale [1]).
struct MixWeights {
  std::vector<float> fn;     // [2n + n², n·D]
  std::vector<float> base;   // [2n + n²]
  std::vector<float> scale;  // [3]
};

struct MixRule {
  size_t streams = 1;
  size_t iterations = 20;
  float eps = 1e-6f;       // hc_eps
  float norm_eps = 1e-6f;  // rms_norm_eps
};

struct Mixes {
  std::vector<float> pre;   // [n]
  std::vector<float> post;  // [n]
  std::vector<float> comb;  // [n, n], row = source, column = destination
};

/// The Sinkhorn projection of logits [n, n]: rows by softmax, then columns and rows in turn.
std::vector<float> Sinkhorn(std::vector<float> logits, const MixRule& rule);

/// X [n·D], stream-major.
Mixes MixesOf(const std::vector<float>& x, const MixWeights& weights, const MixRule& rule);
/// Σ_i weight_i X_i [D].
std::vector<float> Collapse(const std::vector<float>& x, const std::vector<float>& weights);
/// X_j ← post_j · y + Σ_i P_ij X_i.
void Expand(const Mixes& mixes, const std::vector<float>& y, std::vector<float>& x);
/// The collapse before the head: weights σ(m · scale + base) + eps.
std::vector<float> CollapseHead(const std::vector<float>& x, const MixWeights& weights,
                                const MixRule& rule);

}  // namespace expertmesh::model::reference

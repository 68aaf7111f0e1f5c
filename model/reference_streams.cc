#include "model/reference_streams.h"

#include <cmath>

#include "model/kernels/math.h"
#include "model/kernels/reference/reference_kernels.h"

namespace expertmesh::model::reference {
namespace {

// m = (fn · vec(X)) · rinv.
std::vector<float> RawMixes(const std::vector<float>& x, const std::vector<float>& fn, float eps) {
  double squares = 0;
  for (const float v : x) squares += double{v} * double{v};
  const double mean = squares / static_cast<double>(x.size());
  const auto rinv = static_cast<float>(1.0 / std::sqrt(mean + double{eps}));
  std::vector<float> m = Linear(fn, x);
  for (float& v : m) v *= rinv;
  return m;
}

}  // namespace

std::vector<float> Sinkhorn(std::vector<float> p, const MixRule& rule) {
  const size_t n = rule.streams;
  const auto normalise_rows = [&] {
    for (size_t i = 0; i < n; ++i) {
      float sum = 0;
      for (size_t j = 0; j < n; ++j) sum += p[i * n + j];
      for (size_t j = 0; j < n; ++j) p[i * n + j] /= sum + rule.eps;
    }
  };
  const auto normalise_columns = [&] {
    for (size_t j = 0; j < n; ++j) {
      float sum = 0;
      for (size_t i = 0; i < n; ++i) sum += p[i * n + j];
      for (size_t i = 0; i < n; ++i) p[i * n + j] /= sum + rule.eps;
    }
  };
  for (size_t i = 0; i < n; ++i) Softmax(std::span(p).subspan(i * n, n));
  for (float& v : p) v += rule.eps;
  normalise_columns();
  for (size_t round = 1; round < rule.iterations; ++round) {
    normalise_rows();
    normalise_columns();
  }
  return p;
}

Mixes MixesOf(const std::vector<float>& x, const MixWeights& w, const MixRule& rule) {
  const size_t n = rule.streams;
  const std::vector<float> m = RawMixes(x, w.fn, rule.norm_eps);
  Mixes mixes;
  for (size_t i = 0; i < n; ++i) {
    mixes.pre.push_back(Sigmoid(m[i] * w.scale[0] + w.base[i]) + rule.eps);
    mixes.post.push_back(2.0f * Sigmoid(m[n + i] * w.scale[1] + w.base[n + i]));
  }
  std::vector<float> logits;
  for (size_t i = 2 * n; i < m.size(); ++i) logits.push_back(m[i] * w.scale[2] + w.base[i]);
  mixes.comb = Sinkhorn(std::move(logits), rule);
  return mixes;
}

std::vector<float> Collapse(const std::vector<float>& x, const std::vector<float>& weights) {
  const size_t hidden = x.size() / weights.size();
  std::vector<float> u(hidden, 0.0f);
  for (size_t i = 0; i < weights.size(); ++i) {
    for (size_t c = 0; c < hidden; ++c) u[c] += weights[i] * x[i * hidden + c];
  }
  return u;
}

void Expand(const Mixes& mixes, const std::vector<float>& y, std::vector<float>& x) {
  const size_t n = mixes.post.size();
  const std::vector<float> old = x;
  for (size_t j = 0; j < n; ++j) {
    for (size_t c = 0; c < y.size(); ++c) {
      float sum = mixes.post[j] * y[c];
      for (size_t i = 0; i < n; ++i) sum += mixes.comb[i * n + j] * old[i * y.size() + c];
      x[j * y.size() + c] = sum;
    }
  }
}

std::vector<float> CollapseHead(const std::vector<float>& x, const MixWeights& w,
                                const MixRule& rule) {
  std::vector<float> weights = RawMixes(x, w.fn, rule.norm_eps);
  for (size_t i = 0; i < weights.size(); ++i) {
    weights[i] = Sigmoid(weights[i] * w.scale[0] + w.base[i]) + rule.eps;
  }
  return Collapse(x, weights);
}

}  // namespace expertmesh::model::reference

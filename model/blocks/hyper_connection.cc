#include "model/blocks/hyper_connection.h"

#include <algorithm>
#include <cmath>

#include "model/kernels/math.h"
#include "services/base/status.h"

namespace expertmesh::model {
namespace {

// 1 / sqrt(mean of the squares + eps).
float ReciprocalRoot(const KernelTable& kernels, const float* x, size_t n, float eps) {
  return 1.0f / std::sqrt(kernels.dot(x, x, n) / static_cast<float>(n) + eps);
}

// u = Σ_i weight_i X_i, streams in ascending order.
void WeightedSum(const KernelTable& kernels, const float* weights, const float* streams, size_t n,
                 size_t hidden, float* u) {
  kernels.scale(weights[0], streams, hidden, u);
  for (size_t i = 1; i < n; ++i) kernels.add_scaled(weights[i], streams + i * hidden, hidden, u);
}

// Divides n numbers, `step` apart, by their sum plus eps.
void DivideBySum(float* first, size_t n, size_t step, float eps) {
  float sum = 0;
  for (size_t i = 0; i < n; ++i) sum += first[i * step];
  for (size_t i = 0; i < n; ++i) first[i * step] /= sum + eps;
}

}  // namespace

absl::StatusOr<HyperConnection> HyperConnection::Load(const WeightLoader& loader,
                                                      const Config& config,
                                                      const std::string& prefix) {
  HyperConnection c;
  c.streams_ = config.hc_mult;
  c.hidden_ = config.hidden_size;
  c.iterations_ = config.hc_sinkhorn_iters;
  c.eps_ = config.hc_eps;
  c.norm_eps_ = config.rms_norm_eps;
  const size_t mixes = 2 * c.streams_ + c.streams_ * c.streams_;
  EM_ASSIGN_OR_RETURN(c.fn_, loader.UnroundedMatrix(prefix + "fn", mixes, c.streams_ * c.hidden_));
  EM_ASSIGN_OR_RETURN(c.base_, loader.Vector(prefix + "base", mixes));
  EM_ASSIGN_OR_RETURN(c.scale_, loader.Vector(prefix + "scale", 3));
  return c;
}

// comb [n, n] from logits to the projected matrix.
void HyperConnection::Sinkhorn(float* comb) const {
  const size_t n = streams_;
  for (size_t i = 0; i < n; ++i) {
    float* row = comb + i * n;
    const float maximum = *std::max_element(row, row + n);
    for (size_t j = 0; j < n; ++j) row[j] = Exp(row[j] - maximum);
    DivideBySum(row, n, 1, 0.0f);
    for (size_t j = 0; j < n; ++j) row[j] += eps_;
  }
  for (size_t j = 0; j < n; ++j) DivideBySum(comb + j, n, n, eps_);
  for (uint32_t round = 1; round < iterations_; ++round) {
    for (size_t i = 0; i < n; ++i) DivideBySum(comb + i * n, n, 1, eps_);
    for (size_t j = 0; j < n; ++j) DivideBySum(comb + j, n, n, eps_);
  }
}

// From fn · vec(X) of one row to pre, post and comb, in place.
void HyperConnection::Settle(const KernelTable& kernels, const float* streams, float* m) const {
  const size_t n = streams_;
  const float r = ReciprocalRoot(kernels, streams, n * hidden_, norm_eps_);
  for (size_t i = 0; i < base_.size(); ++i) {
    const size_t part = i < n ? 0 : (i < 2 * n ? 1 : 2);
    m[i] = (m[i] * r) * scale_[part] + base_[i];
  }
  for (size_t i = 0; i < n; ++i) m[i] = Sigmoid(m[i]) + eps_;
  for (size_t i = n; i < 2 * n; ++i) m[i] = 2.0f * Sigmoid(m[i]);
  Sinkhorn(m + 2 * n);
}

void HyperConnection::Collapse(const Exec& exec, const float* streams, size_t rows, MixScratch& s,
                               float* u) const {
  const size_t width = streams_ * hidden_;
  const size_t mixes = base_.size();
  s.mixes.resize(rows * mixes);
  Linear(exec, fn_, streams, width, rows, s.mixes.data(), mixes);
  exec.pool.ParallelFor(rows, GrainFor(2 * width), [&](size_t begin, size_t end, int) {
    for (size_t r = begin; r < end; ++r) {
      float* m = s.mixes.data() + r * mixes;
      const float* row = streams + r * width;
      Settle(exec.kernels, row, m);
      WeightedSum(exec.kernels, m, row, streams_, hidden_, u + r * hidden_);
    }
  });
}

void HyperConnection::Expand(const Exec& exec, const float* y, size_t rows, MixScratch& s,
                             std::vector<float>& streams) const {
  const size_t n = streams_;
  const size_t width = n * hidden_;
  s.next.resize(rows * width);
  exec.pool.ParallelFor(rows, GrainFor((n + 1) * width), [&](size_t begin, size_t end, int) {
    for (size_t r = begin; r < end; ++r) {
      const float* m = s.mixes.data() + r * base_.size();
      const float* post = m + n;
      const float* comb = m + 2 * n;
      for (size_t j = 0; j < n; ++j) {
        float* out = s.next.data() + r * width + j * hidden_;
        exec.kernels.scale(post[j], y + r * hidden_, hidden_, out);
        for (size_t i = 0; i < n; ++i) {
          const float* from = streams.data() + r * width + i * hidden_;
          exec.kernels.add_scaled(comb[i * n + j], from, hidden_, out);
        }
      }
    }
  });
  streams.swap(s.next);
}

absl::StatusOr<HeadCollapse> HeadCollapse::Load(const WeightLoader& loader, const Config& config) {
  HeadCollapse c;
  c.streams_ = config.hc_mult;
  c.hidden_ = config.hidden_size;
  c.eps_ = config.hc_eps;
  c.norm_eps_ = config.rms_norm_eps;
  const std::string prefix = "model.hc_head.hc_";
  EM_ASSIGN_OR_RETURN(c.fn_,
                      loader.UnroundedMatrix(prefix + "fn", c.streams_, c.streams_ * c.hidden_));
  EM_ASSIGN_OR_RETURN(c.base_, loader.Vector(prefix + "base", c.streams_));
  EM_ASSIGN_OR_RETURN(c.scale_, loader.Vector(prefix + "scale", 1));
  return c;
}

void HeadCollapse::Collapse(const Exec& exec, const float* streams, size_t rows, MixScratch& s,
                            float* u) const {
  const size_t n = streams_;
  const size_t width = n * hidden_;
  s.mixes.resize(rows * n);
  Linear(exec, fn_, streams, width, rows, s.mixes.data(), n);
  for (size_t r = 0; r < rows; ++r) {
    float* m = s.mixes.data() + r * n;
    const float* row = streams + r * width;
    const float root = ReciprocalRoot(exec.kernels, row, width, norm_eps_);
    for (size_t i = 0; i < n; ++i) m[i] = Sigmoid((m[i] * root) * scale_[0] + base_[i]) + eps_;
    WeightedSum(exec.kernels, m, row, n, hidden_, u + r * hidden_);
  }
}

}  // namespace expertmesh::model

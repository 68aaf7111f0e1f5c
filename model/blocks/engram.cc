#include "model/blocks/engram.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "model/kernels/math.h"
#include "services/base/status.h"

namespace expertmesh::model {

absl::StatusOr<Engram> Engram::Load(const WeightLoader& loader, const Config& config,
                                    uint32_t layer) {
  const std::string prefix = absl::StrCat("model.layers.", layer, ".engram.");
  Engram e;
  e.streams_ = config.hc_mult;
  e.hidden_ = config.hidden_size;
  e.eps_ = config.rms_norm_eps;
  e.scale_ = 1.0f / std::sqrt(static_cast<float>(e.hidden_));
  const size_t inputs = size_t{config.engram->columns()} * config.engram->head_dim;
  EM_ASSIGN_OR_RETURN(e.projection_,
                      loader.Matrix(prefix + "wkv.weight", (e.streams_ + 1) * e.hidden_, inputs));
  EM_ASSIGN_OR_RETURN(e.weight_, loader.Flat(prefix + "q_weight", e.streams_, e.hidden_));
  EM_ASSIGN_OR_RETURN(const std::vector<float> key,
                      loader.Flat(prefix + "k_weight", e.streams_, e.hidden_));
  for (size_t i = 0; i < key.size(); ++i) e.weight_[i] *= key[i];
  return e;
}

// g of one stream: the logistic of the signed square root of the match.
float Engram::Gate(const KernelTable& kernels, size_t stream, const float* x, const float* key,
                   float* product) const {
  const float* weight = weight_.data() + stream * hidden_;
  for (size_t c = 0; c < hidden_; ++c) product[c] = x[c] * weight[c];
  const auto width = static_cast<float>(hidden_);
  const float x_root = std::sqrt(kernels.dot(x, x, hidden_) / width + eps_);
  const float key_root = std::sqrt(kernels.dot(key, key, hidden_) / width + eps_);
  const float d =
      scale_ * kernels.dot(product, key, hidden_) / (x_root * key_root) + 0.0f;  // −0 becomes +0
  return Sigmoid(std::copysign(std::sqrt(std::max(std::abs(d), 1e-6f)), d));
}

void Engram::AddTo(const Exec& exec, size_t rows, std::span<const uint8_t> alive, EngramScratch& s,
                   float* streams) const {
  const size_t outputs = projection_.outputs;
  s.projected.resize(rows * outputs);
  s.threads.resize(static_cast<size_t>(exec.pool.threads()));
  RoundActivations(exec.kernels, exec.profile, s.entries.data(), rows * projection_.inputs);
  Linear(exec, projection_, s.entries.data(), projection_.inputs, rows, s.projected.data(),
         outputs);
  const size_t width = streams_ * hidden_;
  exec.pool.ParallelFor(rows, GrainFor(4 * width), [&](size_t begin, size_t end, int thread) {
    std::vector<float>& product = s.threads[static_cast<size_t>(thread)];
    product.resize(hidden_);
    for (size_t r = begin; r < end; ++r) {
      if (alive[r] == 0) continue;
      const float* keys = s.projected.data() + r * outputs;
      const float* value = keys + width;
      for (size_t i = 0; i < streams_; ++i) {  // a gate depends on its own stream only
        float* x = streams + r * width + i * hidden_;
        const float g = Gate(exec.kernels, i, x, keys + i * hidden_, product.data());
        exec.kernels.add_scaled(g, value, hidden_, x);
      }
    }
  });
}

}  // namespace expertmesh::model

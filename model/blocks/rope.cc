#include "model/blocks/rope.h"

#include <algorithm>
#include <cmath>

#include "model/kernels/math.h"

namespace expertmesh::model {
namespace {

constexpr double kPi = 3.14159265358979323846;

// How much a stretch by `factor` sharpens attention: 0.1 · mscale · ln(factor) + 1.
double Magnitude(double factor, double mscale) {
  return factor <= 1.0 ? 1.0 : 0.1 * mscale * Log64(factor) + 1.0;
}

double AttentionFactor(const YarnScaling& yarn) {
  if (yarn.attention_factor) return *yarn.attention_factor;
  if (yarn.mscale != 0.0 && yarn.mscale_all_dim != 0.0) {
    return Magnitude(yarn.factor, yarn.mscale) / Magnitude(yarn.factor, yarn.mscale_all_dim);
  }
  return Magnitude(yarn.factor, 1.0);
}

}  // namespace

YarnRange YarnRampRange(const YarnScaling& yarn, double theta, size_t dims) {
  const auto channel = [&](double turns) {  // the one that turns so often over the original length
    const auto length = static_cast<double>(yarn.original_max_position_embeddings);
    return static_cast<double>(dims) * Log64(length / (turns * 2.0 * kPi)) / (2.0 * Log64(theta));
  };
  double low = channel(yarn.beta_fast);
  double high = channel(yarn.beta_slow);
  if (yarn.truncate) {
    low = std::floor(low);
    high = std::ceil(high);
  }
  low = std::max(low, 0.0);
  high = std::min(high, static_cast<double>(dims) - 1.0);
  if (low == high) high += 0.001;
  return {low, high};
}

float AttentionScale(const Config& config) {
  const double width = config.qk_head_dim();
  double m = 1.0;
  if (config.rope_scaling && config.rope_scaling->mscale_all_dim != 0.0) {
    m = Magnitude(config.rope_scaling->factor, config.rope_scaling->mscale_all_dim);
  }
  return static_cast<float>(m * m / std::sqrt(width));
}

Rope::Rope(double theta, size_t dims) {
  const double log_theta = Log64(theta);
  for (size_t i = 0; i < dims / 2; ++i) {
    const double exponent = -2.0 * static_cast<double>(i) / static_cast<double>(dims);
    frequencies_.push_back(Exp64(exponent * log_theta));
  }
}

Rope::Rope(const Config& config) : Rope(config.rope_theta, config.qk_rope_head_dim) {
  if (!config.rope_scaling) return;
  const YarnScaling& yarn = *config.rope_scaling;
  const YarnRange range = YarnRampRange(yarn, config.rope_theta, dims());
  for (size_t i = 0; i < frequencies_.size(); ++i) {
    const double place = (static_cast<double>(i) - range.low) / (range.high - range.low);
    const double ramp = std::clamp(place, 0.0, 1.0);
    frequencies_[i] = frequencies_[i] / yarn.factor * ramp + frequencies_[i] * (1.0 - ramp);
  }
  magnitude_ = AttentionFactor(yarn);
}

void Rope::Turns(uint64_t position, float* out) const {
  for (size_t i = 0; i < frequencies_.size(); ++i) {
    const SinCos turn = SinCos64(static_cast<double>(position) * frequencies_[i]);
    out[2 * i] = static_cast<float>(turn.cos * magnitude_);
    out[2 * i + 1] = static_cast<float>(turn.sin * magnitude_);
  }
}

void Rope::Apply(const float* turns, size_t dims, float* x) {
  for (size_t i = 0; i < dims; i += 2) {
    const float a = x[i];
    const float b = x[i + 1];
    x[i] = a * turns[i] - b * turns[i + 1];
    x[i + 1] = a * turns[i + 1] + b * turns[i];
  }
}

void Rope::ApplyHalfSplit(const float* turns, size_t dims, float* x) {
  const size_t half = dims / 2;
  for (size_t i = 0; i < half; ++i) {
    const float a = x[i];
    const float b = x[half + i];
    x[i] = a * turns[2 * i] - b * turns[2 * i + 1];
    x[half + i] = a * turns[2 * i + 1] + b * turns[2 * i];
  }
}

}  // namespace expertmesh::model

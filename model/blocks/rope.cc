#include "model/blocks/rope.h"

#include "model/kernels/math.h"

namespace expertmesh::model {

Rope::Rope(double theta, size_t dims) {
  const double log_theta = Log64(theta);
  for (size_t i = 0; i < dims / 2; ++i) {
    const double exponent = -2.0 * static_cast<double>(i) / static_cast<double>(dims);
    frequencies_.push_back(Exp64(exponent * log_theta));
  }
}

void Rope::Turns(uint64_t position, float* out) const {
  for (size_t i = 0; i < frequencies_.size(); ++i) {
    const SinCos turn = SinCos64(static_cast<double>(position) * frequencies_[i]);
    out[2 * i] = static_cast<float>(turn.cos);
    out[2 * i + 1] = static_cast<float>(turn.sin);
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

}  // namespace expertmesh::model

#include "model/kernels/reference/reference_kernels.h"

#include <algorithm>
#include <cmath>

#include "model/formats/scalar.h"
#include "model/kernels/math.h"

namespace expertmesh::model::reference {

std::vector<float> Linear(std::span<const float> w, std::span<const float> x) {
  std::vector<float> y(w.size() / x.size());
  for (size_t o = 0; o < y.size(); ++o) {
    float sum = 0;
    for (size_t k = 0; k < x.size(); ++k) sum = std::fma(w[o * x.size() + k], x[k], sum);
    y[o] = sum;
  }
  return y;
}

std::vector<float> LinearInt8(std::span<const int8_t> codes, std::span<const uint16_t> scales,
                              std::span<const float> x) {
  float amax = 0;
  for (const float v : x) amax = std::max(amax, std::fabs(v));
  std::vector<int> row(x.size());
  for (size_t k = 0; k < x.size(); ++k) {
    row[k] = static_cast<int>(std::nearbyint(x[k] * (127.0f / amax)));
  }
  const size_t groups = (x.size() + 31) / 32;
  std::vector<float> y(codes.size() / x.size());
  for (size_t o = 0; o < y.size(); ++o) {
    float sum = 0;
    for (size_t g = 0; g < groups; ++g) {
      int exact = 0;
      for (size_t k = g * 32; k < std::min(g * 32 + 32, x.size()); ++k) {
        exact += codes[o * x.size() + k] * row[k];
      }
      sum = std::fma(static_cast<float>(exact), DecodeF16(scales[o * groups + g]), sum);
    }
    y[o] = sum * (amax / 127.0f);
  }
  return y;
}

std::vector<float> RmsNorm(std::span<const float> x, std::span<const float> w, float eps) {
  float partial[16] = {};
  for (size_t i = 0; i < x.size(); ++i) partial[i % 16] = std::fma(x[i], x[i], partial[i % 16]);
  for (size_t width = 8; width > 0; width /= 2) {
    for (size_t i = 0; i < width; ++i) partial[i] += partial[i + width];
  }
  const float r = 1.0f / std::sqrt(partial[0] / static_cast<float>(x.size()) + eps);
  std::vector<float> y(x.size());
  for (size_t i = 0; i < x.size(); ++i) y[i] = w[i] * (x[i] * r);
  return y;
}

std::vector<float> SwiGlu(std::span<const float> gate, std::span<const float> up,
                          std::span<const float> down, std::span<const float> x) {
  std::vector<float> h = Linear(gate, x);
  const std::vector<float> u = Linear(up, x);
  for (size_t i = 0; i < h.size(); ++i) h[i] = Silu(h[i]) * u[i];
  return Linear(down, h);
}

void Softmax(std::span<float> scores) {
  const float maximum = *std::max_element(scores.begin(), scores.end());
  float sum = 0;
  for (float& s : scores) {
    s = Exp(s - maximum);
    sum += s;
  }
  for (float& s : scores) s /= sum;
}

}  // namespace expertmesh::model::reference

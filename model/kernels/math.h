// exp, log, sin, cos of our own (docs/architecture.md §4: no libm transcendental on the row path):
// plain IEEE operations in one fixed order, so every compiler, CPU and vector width gives the same
// bits.
#pragma once

#include <cstdint>

// Inlined everywhere: a copy compiled for one instruction set must never be shared with another.
#define EM_ALWAYS_INLINE [[gnu::always_inline]] inline

namespace expertmesh::model {

/// e^x within 2 ulp; 0 below -104, +inf above 88.73, NaN for NaN. No branch, so loops vectorise.
EM_ALWAYS_INLINE float Exp(float x) {
  constexpr float kMagic = 12582912.0f;  // 1.5 · 2^23: adding it rounds to an integer
  x = x > 89.0f ? 89.0f : x;
  x = x < -104.0f ? -104.0f : x;
  const float shifted = x * 1.44269504088896341f + kMagic;
  const uint32_t n = __builtin_bit_cast(uint32_t, shifted) - __builtin_bit_cast(uint32_t, kMagic);
  const float nf = shifted - kMagic;
  const float r = (x - nf * 0.693359375f) + nf * 2.12194440e-4f;  // first product is exact
  float p = 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  const float y = (p * (r * r) + r) + 1.0f;
  // 2^n in two factors, so that subnormal results are rounded once.
  const uint32_t half = static_cast<uint32_t>(static_cast<int32_t>(n) >> 1);
  const float first = __builtin_bit_cast(float, (half + 127u) << 23);
  const float second = __builtin_bit_cast(float, (n - half + 127u) << 23);
  return (y * first) * second;
}

/// 1 / (1 + e^-z).
EM_ALWAYS_INLINE float Sigmoid(float z) { return 1.0f / (1.0f + Exp(-z)); }

/// z · sigmoid(z) as one division.
EM_ALWAYS_INLINE float Silu(float z) { return z / (1.0f + Exp(-z)); }

/// e^x in float64 for |x| ≤ 700; relative error below 1e-15.
EM_ALWAYS_INLINE double Exp64(double x) {
  constexpr double kMagic = 6755399441055744.0;  // 1.5 · 2^52
  const double nf = (x * 1.4426950408889634074 + kMagic) - kMagic;
  const double r = (x - nf * 6.93147180369123816490e-01) - nf * 1.90821492927058770002e-10;
  double p = 1.0;
  for (int k = 14; k >= 1; --k) p = 1.0 + p * (r / k);
  const auto n = static_cast<int64_t>(nf);
  return p * __builtin_bit_cast(double, static_cast<uint64_t>(n + 1023) << 52);
}

/// Natural logarithm of a normal positive x; absolute error below 1e-15 · max(1, |ln x|).
EM_ALWAYS_INLINE double Log64(double x) {
  const uint64_t bits = __builtin_bit_cast(uint64_t, x);
  auto e = static_cast<int64_t>(bits >> 52) - 1023;
  double m = __builtin_bit_cast(double, (bits & 0xFFFFFFFFFFFFFull) | 0x3FF0000000000000ull);
  if (m > 1.41421356237309504880) {
    m *= 0.5;
    ++e;
  }
  const double s = (m - 1.0) / (m + 1.0);  // ln m = 2 atanh(s), |s| < 0.172
  const double s2 = s * s;
  double p = 0.0;
  for (int k = 23; k >= 3; k -= 2) p = s2 * (1.0 / k + p);
  const auto ef = static_cast<double>(e);
  return ef * 6.93147180369123816490e-01 + (ef * 1.90821492927058770002e-10 + 2.0 * (s + s * p));
}

/// sin and cos of x radians, |x| ≤ 2e6, absolute error below 1e-9 (1e-15 for small x).
struct SinCos {
  double sin = 0;
  double cos = 1;
};
EM_ALWAYS_INLINE SinCos SinCos64(double x) {
  constexpr double kMagic = 6755399441055744.0;
  const double nf = (x * 6.36619772367581382433e-01 + kMagic) - kMagic;  // quarter turns
  // π/2 in three parts; the first two have 33 bits, so their products with nf are (nearly) exact.
  const double r = ((x - nf * 1.57079632673412561417e+00) - nf * 6.07710050630396597660e-11) -
                   nf * 2.02226624879595063154e-21;
  const double r2 = r * r;
  double s = 0.0;
  for (int k = 19; k >= 3; k -= 2) s = -(r2 / (k * (k - 1))) * (1.0 + s);
  double c = 0.0;
  for (int k = 20; k >= 2; k -= 2) c = -(r2 / (k * (k - 1))) * (1.0 + c);
  const double sine = r + r * s;
  const double cosine = 1.0 + c;
  switch (static_cast<uint64_t>(static_cast<int64_t>(nf)) & 3u) {
    case 0:
      return {sine, cosine};
    case 1:
      return {cosine, -sine};
    case 2:
      return {-sine, -cosine};
    default:
      return {-cosine, sine};
  }
}

}  // namespace expertmesh::model

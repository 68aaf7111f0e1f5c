// The kernels as their formulas read: plain loops, one row, no packing. Every fast kernel is
// compared with these, in bits where the order of operations is fixed (docs/architecture.md §4).
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace expertmesh::model::reference {

/// y[o] = Σ_k w[o][k] · x[k], one chain of fused multiply-adds in ascending k. w [outputs, inputs].
std::vector<float> Linear(std::span<const float> w, std::span<const float> x);

/// The same in int8 (kernels/int8_layout.h): codes [outputs, inputs], F16 scales
/// [outputs, ⌈inputs/32⌉], and x quantised with one scale.
std::vector<float> LinearInt8(std::span<const int8_t> codes, std::span<const uint16_t> scales,
                              std::span<const float> x);

/// w · x / sqrt(mean(x²) + eps) with 16 strided partial sums and a fixed tree.
std::vector<float> RmsNorm(std::span<const float> x, std::span<const float> w, float eps);

/// down(silu(gate x) ⊙ up x), docs/formats.md §1.1.
std::vector<float> SwiGlu(std::span<const float> gate, std::span<const float> up,
                          std::span<const float> down, std::span<const float> x);

/// Softmax in place, in one pass over all scores.
void Softmax(std::span<float> scores);

}  // namespace expertmesh::model::reference

// Random tensors that are a pure function of (seed, tensor name, index): any thread may draw any
// part.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

#include "model/checkpoint.h"
#include "model/writer/presets.h"

namespace expertmesh::model {

/// mean + scale · ξ, ξ standard normal.
struct Distribution {
  double mean = 0;
  double scale = 0;
};

/// docs/model-family.md §6, "Random weights".
Distribution DistributionOf(const TensorSpec& spec, WeightStyle style);

/// Elements [first, first + out.size()) of the tensor. ξ by Box-Muller in double from Philox: key =
/// seed, counter = (index / 4, 64 bits of the name's hash); `first` is a multiple of 4. No libm:
/// the same bits on every machine.
void FillRandom(uint64_t seed, std::string_view tensor, Distribution distribution, uint64_t first,
                std::span<float> out);

}  // namespace expertmesh::model

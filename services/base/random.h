// Random numbers: Philox4x32-10, counter-based (Salmon et al., 2011), and entropy of the machine.
#pragma once

#include <array>
#include <cstdint>

namespace expertmesh::base {

/// One block of Philox4x32-10: a pure function of (key, counter).
std::array<uint32_t, 4> Philox(std::array<uint32_t, 2> key, std::array<uint32_t, 4> counter);

/// 64 bits from the operating system, for incarnations and seeds.
uint64_t EntropyU64();

}  // namespace expertmesh::base

// A worker's fingerprint: what its kernels give on fixed inputs, in bits (docs/architecture.md §4).
// Workers of one lane have equal fingerprints; the build and the CPU do not count, only the bits.
#pragma once

#include <string>

#include "model/kernels/kernel_table.h"
#include "model/profile.h"

namespace expertmesh::model {

/// 16 hex digits over the output bits of every kernel in use, and the profile's name. Takes about 1
/// ms.
std::string Fingerprint(const Profile& profile, const KernelTable& kernels);

}  // namespace expertmesh::model

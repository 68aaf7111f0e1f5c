// The kernel tables that are compiled in; tables of an instruction set may only be used where it
// runs.
#pragma once

#include "model/kernels/kernel_table.h"

namespace expertmesh::model {

const KernelTable& BaselineKernels();
#if defined(__x86_64__)
const KernelTable& Avx2Kernels();
const KernelTable& Avx512Kernels();
#endif

}  // namespace expertmesh::model

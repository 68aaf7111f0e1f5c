// The kernel tables that are compiled in; tables of an instruction set may only be used where it
// runs.
#pragma once

#include "model/kernels/kernel_table.h"

namespace expertmesh::model {

const KernelTable& BaselineKernels();
#if defined(__x86_64__)
const KernelTable& Avx2Kernels();
const KernelTable& Avx512Kernels();
/// KernelTable::linear_int8 for AVX-512 with VNNI, which not every CPU with AVX-512 has.
void LinearInt8Vnni(const Int8LinearTask& task, size_t panel_begin, size_t panel_end);
/// KernelTable::linear_fp8 for AVX-512, without VBMI and with it.
void LinearFp8Avx512(const LinearTask& task, size_t panel_begin, size_t panel_end);
void LinearFp8Vbmi(const LinearTask& task, size_t panel_begin, size_t panel_end);
#endif

}  // namespace expertmesh::model

// The fp8 Linear for AVX-512 with VBMI; flags in model/kernels/kernels.cmake.
#if defined(__x86_64__)
#include "model/kernels/cpu/simd_avx512.h"
// The bodies use the lane types declared above and here.
#include "model/kernels/cpu/fp8_vbmi.h"
#include "model/kernels/cpu/linear_bodies.h"
// In this order.
#include "model/kernels/cpu/fp8_bodies.h"
#include "model/kernels/cpu/tables.h"

namespace expertmesh::model {

void LinearFp8Vbmi(const LinearTask& task, size_t panel_begin, size_t panel_end) {
  LinearFp8(task, panel_begin, panel_end);
}

}  // namespace expertmesh::model
#endif

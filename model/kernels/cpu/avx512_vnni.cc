// The int8 Linear for AVX-512 with VNNI; flags in model/kernels/kernels.cmake.
#if defined(__x86_64__)
#include "model/kernels/cpu/simd_avx512.h"
// The bodies use the lane types declared above and here.
#include "model/kernels/cpu/int8_vnni.h"
// In this order.
#include "model/kernels/cpu/int8_bodies.h"
#include "model/kernels/cpu/tables.h"

namespace expertmesh::model {

void LinearInt8Vnni(const Int8LinearTask& task, size_t panel_begin, size_t panel_end) {
  LinearInt8(task, panel_begin, panel_end);
}

}  // namespace expertmesh::model
#endif

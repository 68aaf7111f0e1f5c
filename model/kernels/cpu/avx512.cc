// Kernels for avx512; flags in model/kernels/kernels.cmake.
#if defined(__x86_64__)
#include "model/kernels/cpu/simd_avx512.h"
// The bodies use the sixteen-lane type declared above.
#include "model/kernels/cpu/kernel_bodies.h"
// The same for fp8.
#include "model/kernels/cpu/fp8_avx512.h"
// In this order.
#include "model/kernels/cpu/fp8_widener.h"
// Over that.
#include "model/kernels/cpu/fp8_bodies.h"
#include "model/kernels/cpu/tables.h"

namespace expertmesh::model {

void LinearFp8Avx512(const LinearTask& task, size_t panel_begin, size_t panel_end) {
  LinearFp8(task, panel_begin, panel_end);
}

const KernelTable& Avx512Kernels() {
  static const KernelTable kTable =
      MakeTable("avx512", __builtin_cpu_supports("avx512vbmi") ? LinearFp8Vbmi : LinearFp8Avx512,
                __builtin_cpu_supports("avx512vnni") ? LinearInt8Vnni : Avx2Kernels().linear_int8);
  return kTable;
}

}  // namespace expertmesh::model
#endif

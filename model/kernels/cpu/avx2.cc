// Kernels for avx2; flags in model/kernels/kernels.cmake.
#if defined(__x86_64__)
#include "model/kernels/cpu/simd_avx2.h"
// The bodies use the sixteen-lane type declared above.
#include "model/kernels/cpu/kernel_bodies.h"
// The same for fp8 and int8.
#include "model/kernels/cpu/fp8_avx2.h"
#include "model/kernels/cpu/int8_avx2.h"
// In this order.
#include "model/kernels/cpu/fp8_widener.h"
// Over that.
#include "model/kernels/cpu/fp8_bodies.h"
#include "model/kernels/cpu/int8_bodies.h"
#include "model/kernels/cpu/tables.h"

namespace expertmesh::model {

const KernelTable& Avx2Kernels() {
  static constexpr KernelTable kTable = MakeTable("avx2", LinearFp8, LinearInt8);
  return kTable;
}

}  // namespace expertmesh::model
#endif

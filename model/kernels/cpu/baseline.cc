// Kernels for baseline; flags in model/kernels/kernels.cmake.
#include "model/kernels/cpu/simd_scalar.h"
// The bodies use the sixteen-lane type declared above.
#include "model/kernels/cpu/kernel_bodies.h"
// The same for fp8 and int8.
#include "model/kernels/cpu/fp8_scalar.h"
#include "model/kernels/cpu/int8_scalar.h"
// In this order.
#include "model/kernels/cpu/fp8_widener.h"
// Over that.
#include "model/kernels/cpu/fp8_bodies.h"
#include "model/kernels/cpu/int8_bodies.h"
#include "model/kernels/cpu/tables.h"

namespace expertmesh::model {

const KernelTable& BaselineKernels() {
  static constexpr KernelTable kTable = MakeTable("baseline", LinearFp8, LinearInt8);
  return kTable;
}

}  // namespace expertmesh::model

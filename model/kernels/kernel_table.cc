#include "model/kernels/kernel_table.h"

#if defined(__x86_64__)
#include <cpuid.h>
#endif

#include <string>

#include "absl/strings/str_cat.h"
#include "model/kernels/cpu/tables.h"
#include "services/base/status.h"

namespace expertmesh::model {

namespace {

#if defined(__x86_64__)
// clang before 15 does not know the name for __builtin_cpu_supports.
bool HasF16c() {
  unsigned int a = 0, b = 0, c = 0, d = 0;
  return __get_cpuid(1, &a, &b, &c, &d) != 0 && (c & bit_F16C) != 0;
}
#endif

}  // namespace

std::vector<const KernelTable*> AvailableKernels() {
  std::vector<const KernelTable*> tables;
#if defined(__x86_64__)
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
                    __builtin_cpu_supports("bmi2") && HasF16c();
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") &&
                      __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
                      __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512cd");
  if (avx512) tables.push_back(&Avx512Kernels());
  if (avx2) tables.push_back(&Avx2Kernels());
#endif
  tables.push_back(&BaselineKernels());
  return tables;
}

const KernelTable& FastestKernels() {
  static const KernelTable& fastest = *AvailableKernels().front();
  return fastest;
}

absl::StatusOr<const KernelTable*> KernelsFor(std::string_view isa) {
  const std::vector<const KernelTable*> tables = AvailableKernels();
  if (isa == "auto") return tables.front();
  std::string known = "auto";
  for (const KernelTable* table : tables) {
    if (table->isa == isa) return table;
    absl::StrAppend(&known, ", ", std::string(table->isa));
  }
  return base::Error(base::Reason::kInvalidArgument,
                     absl::StrCat("isa \"", std::string(isa), "\": this CPU runs ", known));
}

}  // namespace expertmesh::model

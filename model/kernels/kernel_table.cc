#include "model/kernels/kernel_table.h"

#include <string>

#include "absl/strings/str_cat.h"
#include "model/kernels/cpu/tables.h"
#include "services/base/status.h"

namespace expertmesh::model {

std::vector<const KernelTable*> AvailableKernels() {
  std::vector<const KernelTable*> tables;
#if defined(__x86_64__)
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
                    __builtin_cpu_supports("bmi2") && __builtin_cpu_supports("f16c");
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") &&
                      __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
                      __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512cd");
  if (avx512) tables.push_back(&Avx512Kernels());
  if (avx2) tables.push_back(&Avx2Kernels());
#endif
  tables.push_back(&BaselineKernels());
  return tables;
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

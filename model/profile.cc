#include "model/profile.h"

#include "absl/strings/str_cat.h"
#include "services/base/status.h"

namespace expertmesh::model {

absl::StatusOr<Profile> ParseProfile(std::string_view name) {
  using enum Profile::Weights;
  if (name == "bf16") return Profile{"bf16", Dtype::kBf16, Dtype::kBf16, Dtype::kBf16, kBf16};
  if (name == "int8") return Profile{"int8", Dtype::kInt8, Dtype::kInt8Row, Dtype::kBf16, kInt8};
  if (name == "exact-f32")
    return Profile{"exact-f32", Dtype::kF32, Dtype::kF32, Dtype::kF32, kAsStored};
  return base::Error(
      base::Reason::kInvalidArgument,
      absl::StrCat("profile \"", std::string(name), "\": use bf16, int8 or exact-f32"));
}

}  // namespace expertmesh::model

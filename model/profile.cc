#include "model/profile.h"

#include "absl/strings/str_cat.h"
#include "services/base/status.h"

namespace expertmesh::model {

absl::StatusOr<Profile> ParseProfile(std::string_view name) {
  if (name == "bf16") return Profile{"bf16", Dtype::kBf16, Dtype::kBf16, Dtype::kBf16, true};
  if (name == "exact-f32")
    return Profile{"exact-f32", Dtype::kF32, Dtype::kF32, Dtype::kF32, false};
  return base::Error(base::Reason::kInvalidArgument,
                     absl::StrCat("profile \"", std::string(name), "\": use bf16 or exact-f32"));
}

}  // namespace expertmesh::model

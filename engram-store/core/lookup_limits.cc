#include "engram-store/core/lookup_limits.h"

#include "absl/strings/str_cat.h"
#include "services/base/status.h"

namespace expertmesh::engram_store {

using base::Error;
using base::Reason;

absl::Status CheckRowLookup(size_t row_count) {
  if (row_count <= kLookupMax) return absl::OkStatus();
  return Error(Reason::kInvalidArgument,
               absl::StrCat("row_ids holds ", row_count, " ids; ask for at most ", kLookupMax,
                            " in one call"));
}

absl::Status CheckRowBytes(size_t row_count, size_t row_bytes) {
  if (row_count * row_bytes <= kLookupBytesMax) return absl::OkStatus();
  return Error(Reason::kInvalidArgument,
               absl::StrCat(row_count, " rows of ", row_bytes, " bytes; ask for at most ",
                            kLookupBytesMax, " bytes in one call"));
}

absl::Status CheckTokenLookup(size_t token_count, size_t skip) {
  if (token_count > kLookupMax) {
    return Error(Reason::kInvalidArgument,
                 absl::StrCat("token_ids holds ", token_count, " ids; ask for at most ", kLookupMax,
                              " in one call"));
  }
  if (skip > token_count) {
    return Error(Reason::kInvalidArgument,
                 absl::StrCat("skip is ", skip, ", but there are ", token_count, " tokens"));
  }
  return absl::OkStatus();
}

}  // namespace expertmesh::engram_store

// A profile is the named set of arithmetic choices of docs/architecture.md §4. It fixes the bits.
#pragma once

#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "services/base/expert_batch.h"

namespace expertmesh::model {

using base::Dtype;
using base::DtypeBytes;

/// `exact-f32`: weights as stored (bf16 widened exactly), f32 rows, f32 KV.
/// `bf16` (default): weights rounded to bf16 (fp8 of the file stays in memory as it is and is
/// rounded when it is used, which gives the same bits: kernels/fp8_layout.h), every Linear rounds
/// its input row to bf16 (except the gate, which is f32 throughout), bf16 rows on the wire (rounded
/// also when nothing is sent), bf16 KV. In both, every dot product is one f32 chain of fused
/// multiply-adds in ascending k.
/// `int8`: weights of every Linear but the gate and the indexer's weights_proj in int8, groups of
/// 32 with F16 scales (int4 and fp4 of the file stay as they are), and its input row quantised from
/// f32 with one scale (kernels/int8_layout.h), in which form it also travels; the rest, and
/// attention over the cache, as `bf16`.
struct Profile {
  enum class Weights { kAsStored, kBf16, kInt8 };  // what a Linear's weights become at load
  std::string name;
  Dtype activation = Dtype::kBf16;  // input row of a Linear
  Dtype wire = Dtype::kBf16;        // rows sent to routed experts
  Dtype kv = Dtype::kBf16;          // lane state
  Weights weights = Weights::kBf16;
};

/// The profile of that name; kInvalidArgument listing the known ones otherwise.
absl::StatusOr<Profile> ParseProfile(std::string_view name);

}  // namespace expertmesh::model

// All routed experts in this process: what `--transport inproc` uses. Rows are rounded to the wire
// type as if they travelled (docs/architecture.md §4, seam rounding), so the bits are those of any
// mesh.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "model/expert_slice.h"
#include "model/kernels/aligned.h"
#include "model/runtime.h"

namespace expertmesh::model {

/// `experts` hosts every expert; it and the pool outlive this object. Used by the engine thread.
class LocalExperts final : public ExpertBackend {
 public:
  LocalExperts(const ExpertSlice& experts, base::ThreadPool& pool)
      : experts_(experts), pool_(pool) {}

  void Begin(const MoeCall& call) override;
  void Finish(uint32_t micro_batch, std::span<float> out, std::span<uint8_t> alive) override;

 private:
  const ExpertSlice& experts_;
  base::ThreadPool& pool_;
  std::vector<MoeCall> calls_;               // by micro-batch
  std::vector<uint32_t> rows_;               // of the call that are alive
  AlignedBytes wire_;                        // [rows_, hidden] in the wire type
  std::vector<float> scales_;                // [rows_], of int8 rows
  std::vector<uint32_t> offsets_;            // [rows_ + 1]
  std::vector<uint16_t> ids_;                // [rows_ · top_k]
  std::vector<float> weights_;               // [rows_ · top_k]
  std::vector<base::PartialNode> partials_;  // one root per row
  std::vector<float> sums_;                  // [rows_, hidden]
};

}  // namespace expertmesh::model

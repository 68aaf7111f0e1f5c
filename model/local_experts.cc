#include "model/local_experts.h"

#include <cstring>

#include "model/wire_row.h"

namespace expertmesh::model {

void LocalExperts::Begin(const MoeCall& call) {
  if (calls_.size() <= call.micro_batch) calls_.resize(call.micro_batch + size_t{1});
  calls_[call.micro_batch] = call;
}

void LocalExperts::Finish(uint32_t micro_batch, std::span<float> out, std::span<uint8_t>) {
  const MoeCall& call = calls_[micro_batch];
  const size_t hidden = call.hidden;
  const size_t top_k = call.top_k;
  const Dtype wire = experts_.profile().wire;
  rows_.clear();
  offsets_.assign(1, 0);
  ids_.clear();
  weights_.clear();
  partials_.clear();
  scales_.clear();
  const auto root = static_cast<uint16_t>(base::RootLevel(experts_.expert_count()));
  std::byte* bytes = wire_.Resize(call.row_count * hidden * DtypeBytes(wire));
  for (size_t row = 0; row < call.row_count; ++row) {
    if (call.alive[row] == 0) continue;
    const float* x = call.rows.data() + row * hidden;
    std::byte* to = bytes + rows_.size() * hidden * DtypeBytes(wire);
    const float scale = ToWire(wire, {x, hidden}, to);
    if (wire == Dtype::kInt8Row) scales_.push_back(scale);
    const auto ids = call.expert_ids.subspan(row * top_k, top_k);
    const auto weights = call.expert_weights.subspan(row * top_k, top_k);
    ids_.insert(ids_.end(), ids.begin(), ids.end());
    weights_.insert(weights_.end(), weights.begin(), weights.end());
    partials_.push_back({static_cast<uint32_t>(rows_.size()), 0, root});
    rows_.push_back(static_cast<uint32_t>(row));
    offsets_.push_back(static_cast<uint32_t>(ids_.size()));
  }
  sums_.resize(rows_.size() * hidden);
  experts_.Compute(
      {call.layer, rows_.size(), wire, bytes, offsets_, ids_, weights_, partials_, scales_}, pool_,
      sums_);
  for (size_t i = 0; i < rows_.size(); ++i) {
    std::memcpy(out.data() + rows_[i] * hidden, sums_.data() + i * hidden, hidden * sizeof(float));
  }
}

}  // namespace expertmesh::model

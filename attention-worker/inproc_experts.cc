#include "attention-worker/inproc_experts.h"

#include <utility>

#include "services/base/status.h"

namespace expertmesh::attention_worker {

void InprocExperts::OnFrame(absl::StatusOr<transport::DispatchFrame> frame,
                            const transport::Reply& reply) {
  if (!frame.ok()) {
    reply(transport::BuildRefusal(0, frame.status()));
    return;
  }
  const transport::DispatchHeader& h = frame->header;
  const auto batch = transport::CheckDispatch(*frame);
  if (!batch.ok()) {
    reply(transport::BuildRefusal(h.call_id(), batch.status()));
    return;
  }
  const size_t values = batch->partials.size() * h.hidden_size();
  transport::Buffer sums = buffers_->Acquire(values * sizeof(float));
  slice_->Compute(*batch, pool_, {reinterpret_cast<float*>(sums.data()), values});
  transport::CombineHeader header;
  header.set_call_id(h.call_id());
  header.set_partial_count(h.partial_count());
  header.set_hidden_size(h.hidden_size());
  header.set_credit_rows(UINT32_MAX);
  reply(transport::BuildCombine(std::move(header), std::move(sums)));
}

PlacementView InprocExperts::View() const {
  PlacementView view;
  view.term = 1;
  view.number = 1;
  view.expert_count = slice_->expert_count();
  const std::vector<base::ExpertRange> all = {{0, slice_->expert_count()}};
  view.pools.push_back({base::SliceName(all), all, {{"inproc", 1, "inproc"}}});
  return view;
}

}  // namespace expertmesh::attention_worker

// All experts in this process: the frame handler of the inproc transport over a whole ExpertSlice.
#pragma once

#include <memory>

#include "attention-worker/core/placement_view.h"
#include "model/expert_slice.h"
#include "services/transport/transport.h"

namespace expertmesh::attention_worker {

/// Serves dispatch frames with `slice`; used by one thread at a time.
class InprocExperts {
 public:
  InprocExperts(std::unique_ptr<model::ExpertSlice> slice, const base::ComputeThreads& threads)
      : slice_(std::move(slice)),
        pool_(threads),
        buffers_(std::make_shared<transport::BufferPool>()) {}

  void OnFrame(absl::StatusOr<transport::DispatchFrame> frame, const transport::Reply& reply);
  /// One pool with one replica that hosts everything, epoch 1.1.
  PlacementView View() const;

 private:
  const std::unique_ptr<model::ExpertSlice> slice_;
  base::ThreadPool pool_;
  const std::shared_ptr<transport::BufferPool> buffers_;
};

}  // namespace expertmesh::attention_worker

// One layer's dispatch as a state machine `(event, now) → actions` (docs/architecture.md §7):
// splits the rows over the pools, folds the combine tree, picks replicas, re-sends after a loss or
// a stale placement, gives up after its budget. Pure; real sockets drive it here, a virtual clock
// in a simulator.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "attention-worker/core/dispatch_memory.h"
#include "attention-worker/core/placement_view.h"
#include "services/base/clock.h"
#include "services/base/expert_node.h"

namespace expertmesh::attention_worker {

/// Rows of one layer. Spans live until the dispatch is done.
struct DispatchInput {
  size_t row_count = 0;
  size_t top_k = 0;
  std::span<const uint16_t> expert_ids;  // [row_count, top_k], ascending inside a row
  std::span<const uint8_t> alive;        // [row_count]
};

/// The rows and experts that one pool computes: the frame's CSR and partial list.
struct Part {
  std::string pool;
  std::vector<uint32_t> rows;         // indices into the layer's rows, ascending
  std::vector<uint32_t> row_offsets;  // [rows + 1]
  std::vector<uint16_t> expert_ids;   // [entries]
  std::vector<uint32_t> entries;      // [entries]: row · top_k + slot, where the weight stands
  std::vector<base::PartialNode> partials;  // .row counts inside this part
};

struct DispatchLimits {
  base::Micros wait_max{1'000'000};       // how long rows wait for a replica of a lost pool
  base::Micros call_timeout{10'000'000};  // how long a call may take
  int refresh_max = 2;                    // re-sends after a refused placement
};

struct DispatchAction {
  enum class Kind { kSend, kCancel, kFailRows };
  Kind kind = Kind::kSend;
  size_t part = 0;       // kSend, kFailRows: index for part()
  uint64_t call_id = 0;  // kSend, kCancel
  std::string worker;    // kSend
  absl::Status status;   // kFailRows
};
using DispatchActions = std::vector<DispatchAction>;

class LayerDispatch {
 public:
  /// `memory` belongs to the worker and outlives this layer.
  LayerDispatch(DispatchLimits limits, DispatchMemory& memory)
      : limits_(limits), memory_(memory), credits_(memory.credits), turn_(memory.turn++) {}

  DispatchActions Start(const DispatchInput& input, const PlacementView& view, base::Instant now);
  /// Sums arrived; the owner keeps them under the part's index. Unknown calls are ignored.
  DispatchActions OnAnswer(uint64_t call_id, size_t credit_rows, base::Instant now);
  /// The call failed: a lost peer goes to the next replica, a refused placement is re-planned with
  /// `view`, anything else fails the rows.
  DispatchActions OnFailure(uint64_t call_id, const absl::Status& status, const PlacementView& view,
                            base::Instant now);
  /// The view or a connection changed, or time passed.
  DispatchActions OnChange(const PlacementView& view, base::Instant now);
  /// Nobody wants these rows any more (`unwanted` [rows], not 0): calls that hold no other row are
  /// cancelled and fail with `status`.
  DispatchActions OnUnwanted(std::span<const uint8_t> unwanted, const absl::Status& status);

  bool done() const { return open_ == 0; }
  /// When OnChange is due next; kNever if nothing waits.
  base::Instant next_wake() const;
  const Part& part(size_t index) const { return parts_[index].part; }
  size_t part_count() const { return parts_.size(); }
  /// The part that a call in flight belongs to; part_count() if it is not in flight.
  size_t PartOfCall(uint64_t call_id) const;
  /// True once the sums of this part are there.
  bool answered(size_t index) const { return parts_[index].state == State::kAnswered; }
  /// Epoch the part was folded with.
  const PlacementView& view() const { return view_; }
  /// Partial sums beyond one per row and worker: the cost of slices that are not aligned.
  size_t extra_partials() const;
  int resends() const { return resends_; }

 private:
  enum class State { kWaiting, kInFlight, kAnswered, kFailed, kReplanned };
  struct PartState {
    Part part;
    State state = State::kWaiting;
    std::string worker;
    uint64_t call_id = 0;
    base::Instant since;  // of the wait, or of the send
    base::Instant wake;   // when the wait or the call runs out
    int refreshes = 0;
    std::vector<std::string> tried;
  };

  void Plan(std::span<const uint32_t> rows, size_t old_part, int refreshes, base::Instant now,
            DispatchActions& actions);
  void Advance(base::Instant now, DispatchActions& actions);
  const Replica* Choose(const PartState& part, bool& any_up) const;
  void TrySend(PartState& part, size_t index, base::Instant now, DispatchActions& actions);
  void Fail(PartState& part, size_t index, const absl::Status& status, DispatchActions& actions);
  absl::Status Unavailable(const PartState& part) const;
  const Pool* PoolNamed(const std::string& name) const;

  const DispatchLimits limits_;
  DispatchMemory& memory_;
  Credits& credits_;  // memory_.credits
  const uint64_t turn_;
  DispatchInput input_;
  PlacementView view_;
  std::vector<uint16_t> owner_;  // [row_count, top_k]: part index of each chosen expert
  std::vector<PartState> parts_;
  size_t open_ = 0;  // parts waiting or in flight
  int resends_ = 0;
};

}  // namespace expertmesh::attention_worker

// The engine's side of lanes that park, move and go on (attention_engine.h).
#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "attention-worker/attention_engine.h"
#include "services/base/status.h"

namespace expertmesh::attention_worker {

using base::Error;
using base::Reason;

namespace {

absl::Status NotFound() {
  return Error(Reason::kLaneNotFound,
               "no such lane is parked here; parked lanes are forgotten after a while");
}

size_t PositionsOn(size_t page, size_t positions) {
  const size_t first = page * model::kPagePositions;
  return positions <= first ? 0 : std::min<size_t>(positions - first, model::kPagePositions);
}

}  // namespace

void AttentionEngine::Post(Task task) {
  std::lock_guard lock(mutex_);
  tasks_.push_back(std::move(task));
  wake_.notify_all();
}

void AttentionEngine::RunTasks() {
  std::deque<Task> tasks;
  {
    std::lock_guard lock(mutex_);
    tasks.swap(tasks_);
  }
  for (const Task& task : tasks) task();
}

std::shared_ptr<AttentionEngine::Running> AttentionEngine::FindParked(
    const std::string& name) const {
  std::lock_guard lock(mutex_);
  for (const auto& [id, running] : lanes_) {
    if (running->parked && running->lane.request().name == name) return running;
  }
  return nullptr;
}

absl::StatusOr<std::shared_ptr<AttentionEngine::Running>> AttentionEngine::FindOwned(
    const std::string& name, const std::string& tenant) const {
  std::lock_guard lock(mutex_);
  for (const auto& [id, running] : lanes_) {
    const LaneRequest& request = running->lane.request();
    if (!name.empty() && request.name == name && request.tenant == tenant) return running;
  }
  return NotFound();
}

LaneSnapshot AttentionEngine::SnapshotOf(const Running& running) const {
  const LaneRequest& request = running.lane.request();
  const auto& tokens = running.lane.tokens();
  LaneSnapshot snapshot;
  snapshot.record = request.record;
  snapshot.generated.assign(tokens.begin() + static_cast<ptrdiff_t>(request.prompt.size()),
                            tokens.end());
  std::lock_guard lock(mutex_);
  snapshot.positions = scheduler_.computed(running.lane.id());
  return snapshot;
}

// The lane's caller hears that it is parked; exports that waited for it go on.
void AttentionEngine::Park(Running& running) {
  {
    std::lock_guard lock(mutex_);
    scheduler_.Grew(running.lane.id());
    scheduler_.Park(running.lane.id(), clock_.Now() + options_.parked_lifetime);
    running.parked = true;
  }
  const std::shared_ptr<LaneSink> sink = std::exchange(running.sink, nullptr);
  if (sink) {
    sink->OnEnd(LaneEnd{
        FinishReason::kParked, running.lane.request().prompt.size(), running.lane.generated(), {}});
  }
  for (const auto& waiting : std::exchange(running.park_waiters, {})) {
    waiting(SnapshotOf(running));
  }
}

void AttentionEngine::Resume(const std::string& name, const std::string& tenant,
                             uint32_t park_after, base::Instant deadline,
                             std::shared_ptr<LaneSink> sink) {
  Post([this, name, tenant, park_after, deadline, sink = std::move(sink)] {
    const auto found = FindOwned(name, tenant);
    if (!found.ok()) return sink->OnEnd(found.status());
    Running& running = **found;
    if (!running.parked || running.pages_arrived < running.pages_expected) {
      sink->OnEnd(Error(Reason::kLaneNotParked,
                        running.parked ? "the lane has not arrived yet" : "the lane is running"));
      return;
    }
    if (park_after != 0 && park_after <= running.lane.generated()) {
      sink->OnEnd(Error(Reason::kInvalidArgument,
                        absl::StrCat("park_after_tokens is ", park_after, ", the lane has ",
                                     running.lane.generated(), " tokens already")));
      return;
    }
    {
      std::lock_guard lock(mutex_);
      scheduler_.Resume(running.lane.id(), deadline);
      running.deadline = deadline;
      running.lane.set_park_after(park_after);
      running.parked = false;
      running.cancelled = false;
      running.started = true;
    }
    running.sink = sink;
  });
}

void AttentionEngine::Export(const std::string& name, const std::string& tenant, bool park,
                             std::function<void(absl::StatusOr<LaneSnapshot>)> done) {
  Post([this, name, tenant, park, done = std::move(done)] {
    const auto found = FindOwned(name, tenant);
    if (!found.ok()) return done(found.status());
    Running& running = **found;
    if (running.parked) return done(SnapshotOf(running));
    if (!park) return done(Error(Reason::kLaneNotParked, "the lane is running; ask to park it"));
    running.park_waiters.push_back(done);
  });
}

void AttentionEngine::ExportPage(const std::string& name, size_t page, size_t positions,
                                 std::function<void(absl::StatusOr<std::string>)> done) {
  Post([this, name, page, positions, done = std::move(done)] {
    const auto running = FindParked(name);
    if (!running) return done(NotFound());
    {
      std::lock_guard lock(mutex_);
      if (scheduler_.computed(running->lane.id()) != positions) return done(NotFound());
    }
    done(running->state.CopyPage(page, PositionsOn(page, positions)));
  });
}

void AttentionEngine::Import(LaneRequest request, size_t positions,
                             std::function<void(absl::Status)> done) {
  Post([this, request = std::move(request), positions, done = std::move(done)]() mutable {
    std::shared_ptr<Running> running;
    {
      std::lock_guard lock(mutex_);
      running = MakeRunning(std::move(request), nullptr);
      const Lane& lane = running->lane;
      const absl::Status admitted =
          scheduler_.AdmitParked(lane.id(), lane.tokens().size(), lane.length_max(), positions,
                                 clock_.Now() + options_.parked_lifetime, lane.blocks());
      if (!admitted.ok()) return done(admitted);
      running->parked = true;
      running->pages_expected = (positions + model::kPagePositions - 1) / model::kPagePositions;
      lanes_.emplace(lane.id(), running);
    }
    ReservePages(*running, positions);
    done(absl::OkStatus());
  });
}

void AttentionEngine::ImportPage(const std::string& name, size_t page, size_t positions,
                                 std::string state, std::function<void(absl::Status)> done) {
  Post([this, name, page, positions, state = std::move(state), done = std::move(done)] {
    const auto running = FindParked(name);
    if (!running || running->state.capacity() < positions) return done(NotFound());
    if (page == running->pages_arrived && page < running->pages_expected &&
        running->state.WritePage(page, PositionsOn(page, positions), state)) {
      ++running->pages_arrived;
      return done(absl::OkStatus());
    }
    done(Error(Reason::kFrameMalformed,
               absl::StrCat("page ", page, " of the lane's state, ", state.size(), " bytes: page ",
                            running->pages_arrived, " of ", running->pages_expected,
                            " is next, with ", PositionsOn(page, positions), " positions")));
  });
}

void AttentionEngine::Drop(const std::string& name) {
  Post([this, name] {
    if (const auto running = FindParked(name)) {
      End(running->lane.id(), Error(Reason::kCancelled, "the lane moved away"));
    }
  });
}

}  // namespace expertmesh::attention_worker

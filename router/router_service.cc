#include "router/router_service.h"

#include <optional>
#include <utility>

#include "router/core/route.h"
#include "services/base/status.h"
#include "services/rpc/identity.h"
#include "services/rpc/status.h"

namespace expertmesh::router {
namespace {

using base::Error;
using base::Reason;
constexpr auto kTick = std::chrono::milliseconds(100);

// v1::Role counts from 1 in the same order.
Role FromProto(common::v1::Role role) { return static_cast<Role>(static_cast<int>(role) - 1); }
common::v1::Role ToProto(Role role) {
  return static_cast<common::v1::Role>(static_cast<int>(role) + 1);
}

void SetEpoch(const EpochId& from, common::v1::Epoch* to) {
  to->set_term(from.term);
  to->set_number(from.number);
  to->set_content_hash(from.content_hash);
}

template <class Field>
void SetRanges(const std::vector<base::ExpertRange>& from, Field* to) {
  for (const base::ExpertRange& r : from) {
    auto* range = to->Add();
    range->set_begin(r.begin);
    range->set_end(r.end);
  }
}

absl::StatusOr<Member> FromHello(const v1::Hello& hello) {
  Member m;
  if (hello.role() < common::v1::ROLE_GATEWAY || hello.role() > common::v1::ROLE_ENGRAM_STORE ||
      hello.name().empty() || hello.name().size() > 256 || hello.expert_count() > 65536) {
    return Error(Reason::kInvalidArgument, "Hello needs a role, a name and at most 65536 experts");
  }
  m.role = FromProto(hello.role());
  m.name = hello.name();
  m.incarnation = hello.incarnation();
  m.address = hello.address();
  m.admin_address = hello.admin_address();
  m.model = hello.model().model();
  m.revision = hello.model().revision();
  m.profile = hello.profile();
  m.fingerprint = hello.fingerprint();
  m.expert_count = hello.expert_count();
  m.last_epoch = {hello.last_epoch().term(), hello.last_epoch().number(),
                  hello.last_epoch().content_hash()};
  uint32_t at = 0;
  for (const auto& range : hello.experts()) {
    if (range.begin() < at || range.end() <= range.begin() || range.end() > m.expert_count) {
      return Error(Reason::kInvalidArgument, "Hello.experts must be ascending, disjoint ranges");
    }
    at = range.end();
    m.experts.push_back({range.begin(), range.end()});
  }
  if (m.role == Role::kExpertWorker && m.experts.empty()) {
    return Error(Reason::kInvalidArgument, "an expert worker must host at least one expert");
  }
  return m;
}

}  // namespace

/// One Register stream. Shared by the service and gRPC's reactor; the newest view waits here until the last
/// one is written.
class RegisterStream : public std::enable_shared_from_this<RegisterStream> {
 public:
  struct Reactor final : grpc::ServerBidiReactor<v1::RegisterRequest, v1::RegisterResponse> {
    explicit Reactor(std::shared_ptr<RegisterStream> s) : stream(std::move(s)) {}
    void OnReadDone(bool ok) override { stream->Received(ok); }
    void OnWriteDone(bool ok) override { stream->Written(ok); }
    void OnCancel() override { stream->End(grpc::Status::CANCELLED, "the member closed the stream"); }
    void OnDone() override {
      stream->Detach();
      delete this;
    }
    std::shared_ptr<RegisterStream> stream;
    v1::RegisterRequest in;
    v1::RegisterResponse out;
  };

  RegisterStream(RouterService& service, uint64_t id) : service_(service), id_(id) {}
  uint64_t id() const { return id_; }

  Reactor* Begin() {
    reactor_ = new Reactor(shared_from_this());
    reactor_->StartRead(&reactor_->in);
    return reactor_;
  }

  void Send(const v1::View& view) {
    std::lock_guard lock(mutex_);
    if (reactor_ == nullptr || finishing_) return;
    pending_ = view;
    PumpLocked();
  }

  void End(const grpc::Status& status, const std::string& why) {
    {
      std::lock_guard lock(mutex_);
      if (finishing_ || reactor_ == nullptr) return;
      finishing_ = true;
      reactor_->Finish(status);
    }
    service_.OnEnd(id_, why);
  }

 private:
  void PumpLocked() {
    if (writing_ || !pending_ || finishing_) return;
    writing_ = true;
    *reactor_->out.mutable_view() = *std::move(pending_);
    pending_.reset();
    reactor_->StartWrite(&reactor_->out);
  }
  void Written(bool ok) {
    std::lock_guard lock(mutex_);
    writing_ = false;
    if (ok) PumpLocked();
  }
  void Received(bool ok) {
    if (!ok) {
      End(grpc::Status::OK, "the member closed the stream");
      return;
    }
    service_.OnMessage(shared_from_this(), reactor_->in);
    std::lock_guard lock(mutex_);
    if (!finishing_) reactor_->StartRead(&reactor_->in);
  }
  void Detach() {
    std::lock_guard lock(mutex_);
    reactor_ = nullptr;
  }

  RouterService& service_;
  const uint64_t id_;
  std::mutex mutex_;
  Reactor* reactor_ = nullptr;        // guarded by mutex_
  bool writing_ = false;              // guarded by mutex_
  bool finishing_ = false;            // guarded by mutex_
  std::optional<v1::View> pending_;   // guarded by mutex_
};

RouterService::RouterService(uint64_t incarnation, const base::Clock& clock, OnChange on_change)
    : incarnation_(incarnation), clock_(clock), on_change_(std::move(on_change)) {
  std::lock_guard lock(mutex_);
  view_ = BuildViewLocked();
  timer_ = std::thread([this] { TickLoop(); });
}

RouterService::~RouterService() {
  {
    std::lock_guard lock(mutex_);
    stop_ = true;
  }
  wake_.notify_all();
  timer_.join();
}

grpc::ServerBidiReactor<v1::RegisterRequest, v1::RegisterResponse>* RouterService::Register(
    grpc::CallbackServerContext* /*context*/) {
  std::lock_guard lock(mutex_);
  const uint64_t id = next_stream_++;
  const auto stream = std::make_shared<RegisterStream>(*this, id);
  streams_[id] = stream;
  return stream->Begin();
}

void RouterService::OnMessage(const std::shared_ptr<RegisterStream>& stream,
                              const v1::RegisterRequest& message) {
  if (message.has_hello()) {
    auto member = FromHello(message.hello());
    if (!member.ok()) {
      stream->End(rpc::ToGrpcStatus(member.status()), "bad Hello");
      return;
    }
    std::shared_ptr<RegisterStream> replaced;
    {
      std::lock_guard lock(mutex_);
      const MembershipChange change =
          membership_.Hello(stream->id(), *std::move(member), clock_.Now());
      ApplyLocked(change);
      if (change.close_stream) {
        const auto it = streams_.find(*change.close_stream);
        if (it != streams_.end()) replaced = it->second;
      }
    }
    if (replaced) {
      replaced->End(rpc::ToGrpcStatus(Error(Reason::kPeerLost, "a newer process has this name")),
                    "replaced by a newer process of the same name");
    }
  } else if (message.has_report()) {
    const auto& r = message.report();
    std::lock_guard lock(mutex_);
    ApplyLocked(membership_.OnReport(
        stream->id(), {r.ready(), r.draining(), r.load(), r.queued(), r.reason()}, clock_.Now()));
  }
}

void RouterService::OnEnd(uint64_t stream, const std::string& why) {
  std::lock_guard lock(mutex_);
  streams_.erase(stream);
  ApplyLocked(membership_.StreamEnded(stream, why));
}

void RouterService::TickLoop() {
  std::unique_lock lock(mutex_);
  while (!wake_.wait_for(lock, kTick, [&] { return stop_; })) {
    const MembershipChange change = membership_.Tick(clock_.Now());
    std::shared_ptr<RegisterStream> closing;
    if (change.close_stream && streams_.contains(*change.close_stream)) {
      closing = streams_[*change.close_stream];
    }
    ApplyLocked(change);
    if (!closing) continue;
    lock.unlock();  // End calls back into OnEnd
    closing->End(rpc::ToGrpcStatus(Error(Reason::kDeadlineExceeded, "no report for 1.5 s")),
                 "no report for 1.5 s");
    lock.lock();
  }
}

void RouterService::ApplyLocked(const MembershipChange& change) {
  if (!change.view_changed) return;
  placement_.Update(membership_.members());
  ++sequence_;
  view_ = BuildViewLocked();
  for (const auto& [id, stream] : streams_) stream->Send(view_);
  on_change_(view_, change.departed);
}

v1::View RouterService::BuildViewLocked() const {
  v1::View view;
  view.set_router_incarnation(incarnation_);
  view.set_sequence(sequence_);
  for (const auto& [key, m] : membership_.members()) {
    auto* member = view.add_members();
    auto* hello = member->mutable_hello();
    hello->set_role(ToProto(m.role));
    hello->set_name(m.name);
    hello->set_incarnation(m.incarnation);
    hello->set_address(m.address);
    hello->set_admin_address(m.admin_address);
    hello->mutable_model()->set_model(m.model);
    hello->mutable_model()->set_revision(m.revision);
    hello->set_profile(m.profile);
    hello->set_fingerprint(m.fingerprint);
    SetRanges(m.experts, hello->mutable_experts());
    hello->set_expert_count(m.expert_count);
    auto* report = member->mutable_report();
    report->set_ready(m.ready);
    report->set_draining(m.draining);
    report->set_load(m.load);
    report->set_queued(m.queued);
    report->set_reason(m.reason);
    member->set_registered_ms(static_cast<uint64_t>((clock_.Now() - m.registered).count()) / 1000);
  }
  SetRanges(placement_.missing(), view.mutable_missing_experts());
  if (!placement_.state()) return view;
  const PlacementState& state = *placement_.state();
  auto* placement = view.mutable_placement();
  SetEpoch(state.epoch, placement->mutable_epoch());
  placement->mutable_model()->set_model(state.model);
  placement->mutable_model()->set_revision(state.revision);
  placement->set_expert_count(state.expert_count);
  placement->set_group_size(state.group_size);
  for (const PlacedPool& p : state.pools) {
    auto* pool = placement->add_pools();
    pool->set_name(p.name);
    SetRanges(p.experts, pool->mutable_experts());
    for (const std::string& replica : p.replicas) pool->add_replicas(replica);
  }
  return view;
}

v1::View RouterService::view() const {
  std::lock_guard lock(mutex_);
  return view_;
}

std::string RouterService::mismatch() const {
  std::lock_guard lock(mutex_);
  return placement_.mismatch();
}

grpc::ServerUnaryReactor* RouterService::GetView(grpc::CallbackServerContext* context,
                                                 const v1::GetViewRequest* /*request*/,
                                                 v1::GetViewResponse* response) {
  *response->mutable_view() = view();
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  reactor->Finish(rpc::ToGrpcStatus(rpc::RequireDeadline(*context)));
  return reactor;
}

grpc::ServerUnaryReactor* RouterService::Route(grpc::CallbackServerContext* context,
                                               const v1::RouteRequest* request,
                                               v1::RouteResponse* response) {
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  absl::Status status = rpc::RequireDeadline(*context);
  if (status.ok()) {
    std::lock_guard lock(mutex_);
    const auto stages = router::Route(membership_.members(), placement_, request->model().model(),
                                      request->prompt_tokens());
    status = stages.status();
    if (stages.ok()) {
      for (const Stage& stage : *stages) {
        auto* out = response->add_stages();
        out->set_role(ToProto(stage.role));
        out->set_worker(stage.worker);
        out->set_address(stage.address);
        out->set_token_begin(stage.token_begin);
        out->set_token_end(stage.token_end);
      }
    }
  }
  reactor->Finish(rpc::ToGrpcStatus(status));
  return reactor;
}

}  // namespace expertmesh::router

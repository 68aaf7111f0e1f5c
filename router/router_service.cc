#include "router/router_service.h"

#include <spdlog/spdlog.h>

#include <utility>

#include "router/core/route.h"
#include "router/view_proto.h"
#include "services/base/status.h"
#include "services/rpc/identity.h"
#include "services/rpc/status.h"

namespace expertmesh::router {
namespace {

constexpr auto kTick = std::chrono::milliseconds(100);

}  // namespace

RouterService::RouterService(uint64_t incarnation, const base::Clock& clock, OnChange on_change)
    : incarnation_(incarnation), clock_(clock), on_change_(std::move(on_change)) {
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

RegisterStream::Reactor* RouterService::Register(grpc::CallbackServerContext* /*context*/) {
  std::shared_ptr<RegisterStream> stream;
  RegisterStream::Reactor* reactor = nullptr;
  std::vector<Closing> closing;
  {
    std::lock_guard lock(mutex_);
    const uint64_t id = next_stream_++;
    RegisterStream::Owner& owner = *this;
    stream = std::make_shared<RegisterStream>(owner, id);
    reactor = stream->Begin();
    streams_[id] = stream;
    closing = ApplyLocked(membership_.StreamOpened(id, clock_.Now()));
  }
  for (const Closing& c : closing) {
    c.stream->End(rpc::ToGrpcStatus(c.why), std::string(c.why.message()));
  }
  return reactor;
}

void RouterService::OnMessage(RegisterStream& stream, const v1::RegisterRequest& message) {
  std::vector<Closing> closing;
  {
    std::lock_guard lock(mutex_);
    closing = ApplyLocked(MessageLocked(stream.id(), message));
  }
  // Without the lock: End tells OnEnd.
  for (const Closing& c : closing) {
    c.stream->End(rpc::ToGrpcStatus(c.why), std::string(c.why.message()));
  }
}

MembershipChange RouterService::MessageLocked(uint64_t stream, const v1::RegisterRequest& message) {
  const base::Instant now = clock_.Now();
  if (message.has_report()) {
    return membership_.Reported(stream, FromReport(message.report()), now);
  }
  if (!message.has_hello()) {
    return membership_.Refuse(
        stream, base::Error(base::Reason::kInvalidArgument, "neither a Hello nor a Report"), now);
  }
  auto member = FromHello(message.hello());
  if (!member.ok()) return membership_.Refuse(stream, member.status(), now);
  return membership_.Hello(stream, *std::move(member), now);
}

void RouterService::OnEnd(uint64_t stream, const std::string& why) {
  std::lock_guard lock(mutex_);
  ApplyLocked(membership_.StreamEnded(stream, why, clock_.Now()));
  streams_.erase(stream);
}

void RouterService::TickLoop() {
  std::unique_lock lock(mutex_);
  while (!wake_.wait_for(lock, kTick, [&] { return stop_; })) {
    const std::vector<Closing> closing = ApplyLocked(membership_.Tick(clock_.Now()));
    if (closing.empty()) continue;
    lock.unlock();
    for (const Closing& c : closing) {
      c.stream->End(rpc::ToGrpcStatus(c.why), std::string(c.why.message()));
    }
    lock.lock();
  }
}

// Streams to be ended are returned: that happens without the lock.
std::vector<RouterService::Closing> RouterService::ApplyLocked(MembershipChange change) {
  std::vector<Closing> closing;
  for (MembershipChange::Close& close : change.close) {
    const auto it = streams_.find(close.stream);
    if (it == streams_.end()) continue;
    spdlog::info("Register stream {} ends: {}", close.stream, std::string(close.why.message()));
    closing.push_back({it->second, std::move(close.why)});
    streams_.erase(it);
  }
  if (!change.view_changed && change.forgotten.empty()) return closing;
  if (placement_.Update(membership_.members())) {
    const EpochId& epoch = placement_.state()->epoch;
    spdlog::info("placement epoch {}.{}: {} pools", epoch.term, epoch.number,
                 placement_.state()->pools.size());
  }
  ++sequence_;
  auto response = std::make_shared<v1::RegisterResponse>();
  *response->mutable_view() = ViewLocked();
  // First the pages, then the members: whoever has seen a view finds it in /statusz.
  on_change_({response->view(), placement_.left_out(), std::move(change.departed),
              std::move(change.forgotten)});
  for (const auto& [key, member] : membership_.members()) {
    const auto stream = streams_.find(member.stream);
    if (stream != streams_.end()) stream->second->Send(response);
  }
  return closing;
}

v1::View RouterService::ViewLocked() const {
  v1::View view = ToView(membership_.members(), placement_, clock_.Now());
  view.set_router_incarnation(incarnation_);
  view.set_sequence(sequence_);
  return view;
}

grpc::ServerUnaryReactor* RouterService::GetView(grpc::CallbackServerContext* context,
                                                 const v1::GetViewRequest* /*request*/,
                                                 v1::GetViewResponse* response) {
  const absl::Status status = rpc::RequireDeadline(*context);
  if (status.ok()) {
    std::lock_guard lock(mutex_);
    *response->mutable_view() = ViewLocked();
  }
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  reactor->Finish(rpc::ToGrpcStatus(status));
  return reactor;
}

grpc::ServerUnaryReactor* RouterService::Route(grpc::CallbackServerContext* context,
                                               const v1::RouteRequest* request,
                                               v1::RouteResponse* response) {
  absl::Status status = rpc::RequireDeadline(*context);
  if (status.ok()) {
    std::lock_guard lock(mutex_);
    status = RouteLocked(*request, *response);
  }
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  reactor->Finish(rpc::ToGrpcStatus(status));
  return reactor;
}

absl::Status RouterService::RouteLocked(const v1::RouteRequest& request,
                                        v1::RouteResponse& response) {
  EM_ASSIGN_OR_RETURN(const std::vector<Stage> stages,
                      router::Route(membership_.members(), placement_,
                                    {.model = request.model().model(),
                                     .revision = request.model().revision(),
                                     .prompt_tokens = request.prompt_tokens()}));
  for (const Stage& stage : stages) {
    membership_.Routed({stage.role, stage.worker});
    auto* out = response.add_stages();
    out->set_role(ToProto(stage.role));
    out->set_worker(stage.worker);
    out->set_address(stage.address);
    out->set_token_begin(stage.token_begin);
    out->set_token_end(stage.token_end);
  }
  return absl::OkStatus();
}

}  // namespace expertmesh::router

#include "services/transport/shm_transport.h"

#include <poll.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "expertmesh/expert/v1/expert.grpc.pb.h"
#include "services/base/host_identity.h"
#include "services/base/status.h"
#include "services/rpc/channel.h"
#include "services/rpc/status.h"
#include "services/transport/shm_socket.h"

namespace expertmesh::transport {
namespace {

using base::Error;
using base::Reason;

constexpr auto kAgreeTimeout = std::chrono::seconds(1);
constexpr auto kBackoffFirst = std::chrono::seconds(1);
constexpr auto kBackoffMax = std::chrono::seconds(30);

}  // namespace

ShmTransport::ShmTransport(Options options, PeerListener listener)
    : options_(options),
      listener_(std::move(listener)),
      buffers_(std::make_shared<BufferPool>()),
      streams_(std::make_unique<GrpcTransport>(
          options_.incarnation, [this](const std::string& name, bool up,
                                       const std::string& why) { OnConnection(name, up, why); })),
      agent_([this] { RunAgent(); }) {
  if (!options_.own_thread) return;
  own_thread_ = std::thread([this] {
    for (;;) {
      Wait(own_bell_, std::nullopt);
      std::lock_guard lock(mutex_);
      if (stop_) return;
    }
  });
}

ShmTransport::~ShmTransport() {
  {
    std::lock_guard lock(mutex_);
    stop_ = true;
  }
  agent_wake_.notify_all();
  own_bell_.Ring();
  agent_.join();
  if (own_thread_.joinable()) own_thread_.join();
  std::map<std::string, Known> peers;
  {
    std::lock_guard lock(mutex_);
    peers.swap(peers_);
  }
  for (auto& [name, known] : peers) {
    if (known.link) known.link->Break("the transport stopped");
  }
  streams_.reset();
}

Capabilities ShmTransport::capabilities() const {
  return {.dynamic_peers = true, .reorders = true, .cancels = true};
}

void ShmTransport::AddPeer(const Peer& peer) {
  std::shared_ptr<ShmLink> old;
  {
    std::lock_guard lock(mutex_);
    Known& known = peers_[peer.name];
    if (known.peer == peer) return;
    old = std::exchange(known, Known()).link;
    known.peer = peer;
  }
  if (old) old->Break("replaced by a newer incarnation");
  changed_.Ring();
  streams_->AddPeer(peer);
}

void ShmTransport::RemovePeer(const std::string& name) {
  std::shared_ptr<ShmLink> link;
  {
    std::lock_guard lock(mutex_);
    const auto it = peers_.find(name);
    if (it == peers_.end()) return;
    link = std::move(it->second.link);
    peers_.erase(it);
  }
  if (link) link->Break("the peer was removed");
  changed_.Ring();
  streams_->RemovePeer(name);
}

void ShmTransport::Submit(const std::string& peer, Purpose purpose, DispatchFrame frame,
                          Completion done) {
  std::shared_ptr<ShmLink> link;
  {
    std::lock_guard lock(mutex_);
    const auto it = peers_.find(peer);
    if (it != peers_.end()) link = it->second.link;
  }
  if (link && link->TrySubmit(purpose, frame, done)) return;
  streams_->Submit(peer, purpose, std::move(frame), std::move(done));
}

void ShmTransport::Cancel(uint64_t call_id) {
  std::vector<std::shared_ptr<ShmLink>> links;
  {
    std::lock_guard lock(mutex_);
    for (const auto& [name, known] : peers_) {
      if (known.link) links.push_back(known.link);
    }
  }
  for (const auto& link : links) {
    if (link->Cancel(call_id)) return;
  }
  streams_->Cancel(call_id);
}

// A stream's connection came or went.
void ShmTransport::OnConnection(const std::string& name, bool up, const std::string& why) {
  std::shared_ptr<ShmLink> lost;
  {
    std::lock_guard lock(mutex_);
    const auto it = peers_.find(name);
    if (it != peers_.end()) {
      Known& known = it->second;
      known.connected = up;
      known.refused = false;
      known.retry_at = Clock::now();
      known.backoff = kBackoffFirst;
      if (!up) lost = std::exchange(known.link, nullptr);
    }
  }
  if (lost) {
    lost->Break(why);
    changed_.Ring();
  }
  agent_wake_.notify_all();
  Tell(name, why);
}

// Tells the listener how the peer is reached now, unless it knows. One call at a time, each with
// what holds at that moment, so that an old message never comes last.
void ShmTransport::Tell(const std::string& name, const std::string& why_down) {
  std::lock_guard telling(tell_mutex_);
  Told now{false, why_down};
  bool known_peer = false;
  {
    std::lock_guard lock(mutex_);
    const auto it = peers_.find(name);
    known_peer = it != peers_.end();
    if (known_peer && it->second.connected) {
      const Known& known = it->second;
      now.up = known.link != nullptr || !options_.required;
      now.how = known.link ? "shm" : options_.required ? known.why : "grpc";
    }
  }
  const auto told = told_.find(name);
  const bool same = told != told_.end() && told->second.up == now.up && told->second.how == now.how;
  if (known_peer) {
    told_[name] = now;
  } else {
    told_.erase(name);
  }
  if (!same && listener_) listener_(name, now.up, now.how);
}

// Agrees on rings with peers that are connected and have none.
void ShmTransport::RunAgent() {
  std::unique_lock lock(mutex_);
  while (!stop_) {
    auto wake = Clock::time_point::max();
    Known* next = NextToAgreeLocked(wake);
    if (next == nullptr) {
      if (wake == Clock::time_point::max()) {
        agent_wake_.wait(lock);
      } else {
        agent_wake_.wait_until(lock, wake);
      }
      continue;
    }
    const Peer peer = next->peer;
    lock.unlock();
    Settle(peer, Agree(peer));
    lock.lock();
  }
}

ShmTransport::Known* ShmTransport::NextToAgreeLocked(Clock::time_point& wake) {
  const auto now = Clock::now();
  for (auto& [name, known] : peers_) {
    if (!known.connected || known.refused || known.link) continue;
    if (known.retry_at <= now) return &known;
    wake = std::min(wake, known.retry_at);
  }
  return nullptr;
}

absl::StatusOr<std::shared_ptr<ShmLink>> ShmTransport::Agree(const Peer& peer) {
  expert::v1::AgreeRingRequest request;
  request.set_ring_version(kRingVersion);
  request.set_host(base::HostIdentity());
  request.set_expected_incarnation(peer.incarnation);
  if (request.host().empty()) return Error(Reason::kUnsupported, "no name for this host");
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + kAgreeTimeout);
  expert::v1::AgreeRingResponse response;
  const auto stub = expert::v1::ExpertService::NewStub(rpc::MakeChannel(peer.address));
  EM_RETURN_IF_ERROR(rpc::FromGrpcStatus(stub->AgreeRing(&context, request, &response)));
  Ticket ticket;
  if (response.ticket().size() != ticket.size()) {
    return Error(Reason::kFrameMalformed, "the worker's ticket has another length");
  }
  std::memcpy(ticket.data(), response.ticket().data(), ticket.size());
  EM_ASSIGN_OR_RETURN(UniqueFd socket, ConnectAbstract(response.socket()));
  EM_ASSIGN_OR_RETURN(auto segment, ShmSegment::Create(options_.sizes));
  EM_RETURN_IF_ERROR(SendHello(socket, ticket, *segment));
  EM_RETURN_IF_ERROR(
      AwaitWelcome(socket, static_cast<int>(std::chrono::milliseconds(kAgreeTimeout).count())));
  return std::make_shared<ShmLink>(peer.name, std::move(segment), std::move(socket), buffers_);
}

void ShmTransport::Settle(const Peer& peer, absl::StatusOr<std::shared_ptr<ShmLink>> link) {
  {
    std::lock_guard lock(mutex_);
    const auto it = peers_.find(peer.name);
    if (it == peers_.end() || it->second.peer.incarnation != peer.incarnation ||
        !it->second.connected) {
      return;  // the link, if any, is given up
    }
    Known& known = it->second;
    if (link.ok()) {
      known.link = *link;
    } else {
      known.why = std::string(link.status().message());
      const Reason reason = base::ReasonOf(link.status());
      known.refused = reason == Reason::kUnsupported || reason == Reason::kFrameVersion ||
                      absl::IsUnimplemented(link.status());
      known.retry_at = Clock::now() + known.backoff;
      known.backoff = std::min<Clock::duration>(2 * known.backoff, kBackoffMax);
    }
  }
  if (link.ok()) {
    changed_.Ring();
  } else {
    spdlog::info("no ring to {}: {}", peer.name, std::string(link.status().message()));
  }
  Tell(peer.name, link.ok() ? "" : std::string(link.status().message()));
}

void ShmTransport::RefreshLinks() {
  links_.clear();
  std::lock_guard lock(mutex_);
  for (const auto& [name, known] : peers_) {
    if (known.link) links_.emplace_back(name, known.link);
  }
}

// Broken rings: their peers are reached over gRPC until another one is agreed.
void ShmTransport::DropBroken() {
  for (const auto& [name, link] : links_) {
    if (!link->broken()) continue;
    const std::string why = link->why();
    {
      std::lock_guard lock(mutex_);
      const auto it = peers_.find(name);
      if (it == peers_.end() || it->second.link != link) continue;
      it->second.link = nullptr;
      it->second.why = why;
      it->second.retry_at = Clock::now() + it->second.backoff;
      it->second.backoff = std::min<Clock::duration>(2 * it->second.backoff, kBackoffMax);
    }
    spdlog::warn("{}", why);
    changed_.Ring();
    agent_wake_.notify_all();
    Tell(name, why);
  }
}

bool ShmTransport::Receive() {
  bool any = false;
  for (const auto& [name, link] : links_) any = link->Receive() || any;
  return any;
}

void ShmTransport::Wait(Bell& bell, std::optional<base::Micros> wait) {
  if (changed_.Take()) RefreshLinks();
  if (links_.empty()) return streams_->Wait(bell, changed_, wait);
  const bool any = spinner_.Until([&] {
    return bell.rung() || changed_.rung() ||
           std::any_of(links_.begin(), links_.end(), [](auto& l) { return l.second->Ready(); });
  });
  if (!any) Sleep(bell, wait);
  Receive();
  DropBroken();
  bell.Take();
}

void ShmTransport::Sleep(Bell& bell, std::optional<base::Micros> wait) {
  const auto start = Clock::now();
  bool may = bell.PrepareSleep();
  may = changed_.PrepareSleep() && may;
  for (const auto& [name, link] : links_) may = link->PrepareSleep() && may;
  constexpr size_t kBells = 2;
  std::vector<pollfd> polled = {{bell.fd(), POLLIN, 0}, {changed_.fd(), POLLIN, 0}};
  for (const auto& [name, link] : links_) polled.push_back({link->fd(), POLLIN, 0});
  if (may) {
    const timespec time = ToTimespec(wait.value_or(base::Micros(0)));
    ppoll(polled.data(), polled.size(), wait ? &time : nullptr, nullptr);
    spinner_.SleptFor(Clock::now() - start);
  }
  bell.Awake();
  changed_.Awake();
  for (size_t i = 0; i < links_.size(); ++i) {
    links_[i].second->Awake(polled[kBells + i].revents != 0);
  }
}

}  // namespace expertmesh::transport

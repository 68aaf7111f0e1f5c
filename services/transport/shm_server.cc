#include "services/transport/shm_server.h"

#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "services/base/host_identity.h"
#include "services/base/random.h"
#include "services/base/status.h"

namespace expertmesh::transport {
namespace {

using base::Error;
using base::Reason;
using Clock = std::chrono::steady_clock;

constexpr auto kTicketLife = std::chrono::seconds(5);
constexpr size_t kPendingMax = 16;
constexpr int kTurnsMax = 256;      // between two looks at the sockets
constexpr int kFramesPerTurn = 16;  // of one ring, so that none waits for another for ever
constexpr std::array<Purpose, 2> kPurposes = {Purpose::kDecode, Purpose::kPrefill};

Ticket NewTicket() {
  Ticket ticket;
  for (size_t at = 0; at < ticket.size(); at += sizeof(uint64_t)) {
    const uint64_t word = base::EntropyU64();
    std::memcpy(ticket.data() + at, &word, sizeof(word));
  }
  return ticket;
}

}  // namespace

// One attention worker. Lives as long as anyone can still answer one of its calls.
class ShmServer::Link {
 public:
  Link(std::unique_ptr<ShmSegment> segment, UniqueFd socket)
      : segment_(std::move(segment)),
        socket_(std::move(socket)),
        readers_{RingReader(segment_->requests(Purpose::kDecode)),
                 RingReader(segment_->requests(Purpose::kPrefill))},
        writers_{RingWriter(segment_->answers(Purpose::kDecode)),
                 RingWriter(segment_->answers(Purpose::kPrefill))} {}

  RingReader& reader(Purpose purpose) { return readers_[static_cast<size_t>(purpose)]; }
  int fd() const { return socket_.get(); }
  bool broken() const { return broken_.load(std::memory_order_acquire); }
  bool Ready() const { return !broken() && (readers_[0].Ready() || readers_[1].Ready()); }

  // Any thread.
  void Answer(Purpose purpose, const CombineFrame& frame) {
    const std::string prefix =
        MessagePrefix(frame.header.SerializeAsString(), frame.payload.size());
    {
      std::lock_guard lock(mutex_);
      if (broken()) return;
      const auto written = writers_[static_cast<size_t>(purpose)].TryWrite(
          std::as_bytes(std::span(prefix)), frame.payload.span());
      if (!written.ok() || !*written) {
        BreakLocked(true, written.ok() ? "it asked for more than its answer ring holds"
                                       : std::string(written.status().message()));
        return;
      }
    }
    // As in ShmLink::TrySubmit.
    std::atomic_thread_fence(std::memory_order_seq_cst);
    std::atomic<uint32_t>& asleep = segment_->client_asleep();
    if (asleep.load(std::memory_order_relaxed) != 0 && asleep.exchange(0) != 0) RingDoor(socket_);
  }
  void Break(bool fault, std::string why) {
    std::lock_guard lock(mutex_);
    if (!broken()) BreakLocked(fault, std::move(why));
  }
  std::pair<bool, std::string> why() const {
    std::lock_guard lock(mutex_);
    return {fault_, why_};
  }
  bool PrepareSleep() {
    segment_->server_asleep().store(1, std::memory_order_seq_cst);
    std::atomic_thread_fence(std::memory_order_seq_cst);
    return !Ready() && !broken();
  }
  void Awake(bool signalled) {
    segment_->server_asleep().store(0, std::memory_order_relaxed);
    if (signalled && !AnswerDoor(socket_)) Break(false, "the caller is gone");
  }

 private:
  void BreakLocked(bool fault, std::string why) {
    fault_ = fault;
    why_ = std::move(why);
    broken_.store(true, std::memory_order_release);
    shutdown(socket_.get(), SHUT_RDWR);  // wakes both ends
  }

  const std::unique_ptr<ShmSegment> segment_;
  const UniqueFd socket_;
  std::array<RingReader, 2> readers_;  // the server's thread
  std::atomic<bool> broken_{false};
  mutable std::mutex mutex_;
  std::array<RingWriter, 2> writers_;  // guarded by mutex_
  bool fault_ = false;                 // guarded by mutex_
  std::string why_;                    // guarded by mutex_
};

absl::StatusOr<std::unique_ptr<ShmServer>> ShmServer::Start(Options options) {
  std::string host = base::HostIdentity();
  if (host.empty()) return Error(Reason::kUnsupported, "this host has no name for itself");
  std::string name = absl::StrCat("expertmesh-rings-", absl::Hex(base::EntropyU64()));
  EM_ASSIGN_OR_RETURN(UniqueFd listener, ListenAbstract(name));
  return std::unique_ptr<ShmServer>(
      new ShmServer(std::move(options), std::move(host), std::move(name), std::move(listener)));
}

ShmServer::ShmServer(Options options, std::string host, std::string name, UniqueFd listener)
    : options_(std::move(options)),
      host_(std::move(host)),
      name_(std::move(name)),
      listener_(std::move(listener)),
      buffers_(std::make_shared<BufferPool>()),
      thread_([this] { Run(); }) {}

ShmServer::~ShmServer() { Stop(); }

void ShmServer::Stop() {
  if (!thread_.joinable()) return;
  stop_ = true;
  stop_bell_.Ring();
  thread_.join();
  for (const auto& link : links_) link->Break(false, "the worker stopped");
}

absl::StatusOr<expert::v1::AgreeRingResponse> ShmServer::Agree(
    const expert::v1::AgreeRingRequest& request) {
  if (request.ring_version() != kRingVersion) {
    return Error(Reason::kFrameVersion, absl::StrCat("ring version ", request.ring_version(),
                                                     "; this worker speaks ", kRingVersion));
  }
  if (request.host() != host_) {
    return Error(Reason::kUnsupported, "rings are for callers on the same host");
  }
  const auto now = Clock::now();
  std::lock_guard lock(mutex_);
  std::erase_if(tickets_, [&](const auto& entry) { return entry.second <= now; });
  if (link_count_ + tickets_.size() >= kLinksMax) {
    return Error(Reason::kUnsupported, absl::StrCat("this worker has ", kLinksMax, " rings"));
  }
  const Ticket ticket = NewTicket();
  tickets_[ticket] = now + kTicketLife;
  expert::v1::AgreeRingResponse response;
  response.set_socket(name_);
  response.set_ticket(ticket.data(), ticket.size());
  return response;
}

bool ShmServer::TakeTicket(const Ticket& ticket) {
  std::lock_guard lock(mutex_);
  const auto it = tickets_.find(ticket);
  if (it == tickets_.end()) return false;
  const bool fresh = Clock::now() < it->second;
  tickets_.erase(it);
  return fresh;
}

void ShmServer::Run() {
  int turns = 0;  // since sockets were looked at
  while (!stop_) {
    if (Drain()) {
      if (options_.drained) options_.drained();
      if (++turns < kTurnsMax) continue;
    }
    DropBroken();
    const bool ready = spinner_.Until([&] {
      return stop_bell_.rung() ||
             std::any_of(links_.begin(), links_.end(), [](auto& l) { return l->Ready(); });
    });
    if (ready && ++turns < kTurnsMax) continue;
    turns = 0;
    WaitForSockets(!ready);
  }
}

// Hands over what stands in the rings, decode before prefill. True if there was anything.
bool ShmServer::Drain() {
  bool any = false;
  for (const Purpose purpose : kPurposes) {
    for (const auto& link : links_) {
      for (int i = 0; i < kFramesPerTurn && !link->broken(); ++i) {
        const auto message = link->reader(purpose).Next();
        if (!message.ok()) {
          link->Break(true, std::string(message.status().message()));
          break;
        }
        if (!*message) break;
        const std::array<std::span<const std::byte>, 1> slices = {**message};
        auto frame = ParseDispatchFrame(slices, *buffers_);
        link->reader(purpose).Consume();
        any = true;
        options_.handler(std::move(frame), [link, purpose](const CombineFrame& answer) {
          link->Answer(purpose, answer);
        });
      }
    }
  }
  return any;
}

void ShmServer::DropBroken() {
  std::erase_if(links_, [&](const auto& link) {
    if (!link->broken()) return false;
    const auto [fault, why] = link->why();
    if (options_.broken) options_.broken(fault, why);
    return true;
  });
  link_count_ = links_.size();
}

// Until a frame, a new peer, the end of one, or the end of all; or just looks whether there is one.
void ShmServer::WaitForSockets(bool sleep) {
  const auto start = Clock::now();
  bool may = stop_bell_.PrepareSleep() && sleep;
  for (const auto& link : links_) may = link->PrepareSleep() && may;
  std::vector<pollfd> polled = {{stop_bell_.fd(), POLLIN, 0}, {listener_.get(), POLLIN, 0}};
  for (const auto& link : links_) polled.push_back({link->fd(), POLLIN, 0});
  auto first_end = Clock::time_point::max();
  for (const Pending& pending : pending_) {
    polled.push_back({pending.socket.get(), POLLIN, 0});
    first_end = std::min(first_end, pending.until);
  }
  const auto wait = may ? std::chrono::ceil<base::Micros>(first_end - start) : base::Micros(0);
  const timespec time = ToTimespec(wait);
  ppoll(polled.data(), polled.size(), may && pending_.empty() ? nullptr : &time, nullptr);
  if (may) spinner_.SleptFor(Clock::now() - start);
  stop_bell_.Awake();
  for (size_t i = 0; i < links_.size(); ++i) links_[i]->Awake(polled[2 + i].revents != 0);
  for (Pending& pending : pending_) Welcome(pending);
  const auto now = Clock::now();
  std::erase_if(pending_, [&](const Pending& p) { return !p.socket.valid() || p.until <= now; });
  if (polled[1].revents != 0) Accept();
}

void ShmServer::Accept() {
  for (;;) {
    UniqueFd socket = AcceptOne(listener_);
    if (!socket.valid()) return;
    if (pending_.size() >= kPendingMax) continue;  // closed
    pending_.push_back({std::move(socket), Clock::now() + kTicketLife});
    Welcome(pending_.back());
    if (!pending_.back().socket.valid()) pending_.pop_back();
  }
}

// Makes a link of a peer that has said its hello; one that says anything else is disconnected.
void ShmServer::Welcome(Pending& pending) {
  bool waits = false;
  auto link = TakeHello(pending, waits);
  if (waits) return;
  if (link.ok()) {
    links_.push_back(*std::move(link));
    link_count_ = links_.size();
  } else if (options_.broken) {
    options_.broken(base::ReasonOf(link.status()) == Reason::kFrameMalformed,
                    std::string(link.status().message()));
  }
  pending.socket = UniqueFd();
}

absl::StatusOr<std::shared_ptr<ShmServer::Link>> ShmServer::TakeHello(Pending& pending,
                                                                      bool& waits) {
  EM_ASSIGN_OR_RETURN(auto hello, ReceiveHello(pending.socket));
  if (!hello) {
    waits = true;
    return nullptr;
  }
  if (!TakeTicket(hello->ticket)) {
    return Error(Reason::kFrameMalformed, "ring socket: no ticket of this worker's");
  }
  EM_ASSIGN_OR_RETURN(auto segment, ShmSegment::Map(std::move(hello->memory), hello->sizes));
  EM_RETURN_IF_ERROR(SendWelcome(pending.socket));
  return std::make_shared<Link>(std::move(segment), std::move(pending.socket));
}

}  // namespace expertmesh::transport

#include "services/transport/dispatch_stream.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "services/base/status.h"
#include "services/transport/frame_door.h"

namespace expertmesh::transport::internal {
namespace {

using base::Error;
using base::Reason;

// After an attempt at the last of a peer's addresses; twice as long each time.
constexpr std::chrono::milliseconds kRedialFirst{100};
constexpr std::chrono::milliseconds kRedialMax{1000};
constexpr std::chrono::milliseconds kNamesHold{1000};
constexpr std::chrono::milliseconds kConnectTimeout{2000};
constexpr std::chrono::milliseconds kNamesPoll{10};

void FailAll(std::vector<Completion> calls, const absl::Status& status) {
  for (Completion& done : calls) done(status);
}

}  // namespace

struct DispatchStream::Names {
  std::mutex mutex;
  bool found = false;
  absl::StatusOr<std::vector<SocketAddress>> addresses;
};

// Taken by the polling thread for as long as it works for the stream; void if the stream is
// stopped.
struct DispatchStream::Turn {
  explicit Turn(DispatchStream& s) : stream(s) {
    std::lock_guard lock(stream.mutex_);
    taken = !stream.stopped_;
    if (taken) stream.turn_of_ = std::this_thread::get_id();
  }
  ~Turn() {
    if (!taken) return;
    {
      std::lock_guard lock(stream.mutex_);
      stream.turn_of_ = {};
    }
    stream.turn_over_.notify_all();
  }
  Turn(const Turn&) = delete;
  Turn& operator=(const Turn&) = delete;
  DispatchStream& stream;
  bool taken = false;
};

DispatchStream::DispatchStream(Peer peer, uint64_t incarnation, std::shared_ptr<BufferPool> buffers,
                               Reactor& reactor, UpListener listener)
    : peer_(std::move(peer)),
      incarnation_(incarnation),
      buffers_(std::move(buffers)),
      reactor_(reactor),
      listener_(std::move(listener)) {}

void DispatchStream::Start() {
  std::lock_guard lock(mutex_);
  Later(std::chrono::milliseconds(0), &DispatchStream::Dial);
}

void DispatchStream::Stop(const std::string& why) {
  std::vector<Completion> failed;
  {
    std::unique_lock lock(mutex_);
    if (stopped_) return;
    stopped_ = true;
    DisconnectLocked();
    failed = TakeCallsLocked();
    turn_over_.wait(lock, [&] {
      return turn_of_ == std::thread::id() || turn_of_ == std::this_thread::get_id();
    });
  }
  FailAll(std::move(failed), Error(Reason::kPeerLost, why));
  listener_(false, why);
}

void DispatchStream::Submit(DispatchFrame frame, Completion done) {
  const uint64_t call_id = frame.header.call_id();
  Call call{frame.header.partial_count(), frame.header.hidden_size(), std::move(done)};
  OutMessage message;
  message.prefix = MessagePrefix(frame.header.SerializeAsString(), frame.payload.size());
  message.payload = std::move(frame.payload);
  if (message.prefix.size() + message.payload.size() > size_t{rpc::kMessageBytesMax}) {
    return call.done(Error(Reason::kFrameMalformed, "the frame is longer than a message may be"));
  }
  std::string why;
  {
    std::lock_guard lock(mutex_);
    if (up_) {
      calls_.emplace(call_id, std::move(call));
      connection_->session().Send(stream_, std::move(message));
      if (!FlushLocked().ok() || !closed_.ok()) EndSoonLocked();
      return;
    }
    why = failure_.empty() ? absl::StrCat("no connection to ", peer_.name) : failure_;
  }
  call.done(Error(Reason::kPeerLost, why));
}

bool DispatchStream::Cancel(uint64_t call_id) {
  Completion done;
  {
    std::lock_guard lock(mutex_);
    const auto it = calls_.find(call_id);
    if (it == calls_.end()) return false;
    done = std::move(it->second.done);
    calls_.erase(it);
  }
  done(Error(Reason::kCancelled, "the call was cancelled"));
  return true;
}

// On the polling thread, unless another attempt has begun by then. Under the lock.
void DispatchStream::Later(std::chrono::milliseconds after,
                           void (DispatchStream::*work)(uint64_t attempt)) {
  reactor_.At(Reactor::Clock::now() + after, [weak = weak_from_this(), work, attempt = attempt_] {
    const std::shared_ptr<DispatchStream> stream = weak.lock();
    if (!stream) return;
    const Turn turn(*stream);
    if (turn.taken) (stream.get()->*work)(attempt);
  });
}

void DispatchStream::Dial(uint64_t attempt) {
  absl::Status status;
  {
    std::lock_guard lock(mutex_);
    if (attempt != attempt_) return;
    status = DialLocked();
  }
  if (!status.ok()) Fail(status);
}

absl::Status DispatchStream::DialLocked() {
  auto addresses = Resolve(peer_.frames, /*names=*/false);
  if (addresses.ok()) {
    addresses_ = *std::move(addresses);
    return ConnectLocked();
  }
  if (!addresses_.empty() && Reactor::Clock::now() < names_until_) return ConnectLocked();
  names_ = std::make_shared<Names>();
  std::thread([names = names_, address = peer_.frames] {
    auto found = Resolve(address, /*names=*/true);
    std::lock_guard lock(names->mutex);
    names->addresses = std::move(found);
    names->found = true;
  }).detach();
  Later(kNamesPoll, &DispatchStream::LookForNames);
  return absl::OkStatus();
}

void DispatchStream::LookForNames(uint64_t attempt) {
  absl::Status status;
  {
    std::lock_guard lock(mutex_);
    if (attempt != attempt_) return;
    std::lock_guard names_lock(names_->mutex);
    if (!names_->found) return Later(kNamesPoll, &DispatchStream::LookForNames);
    status = names_->addresses.status();
    if (status.ok()) {
      addresses_ = *names_->addresses;
      names_until_ = Reactor::Clock::now() + kNamesHold;
      status = ConnectLocked();
    }
  }
  if (!status.ok()) Fail(status);
}

absl::Status DispatchStream::ConnectLocked() {
  EM_ASSIGN_OR_RETURN(UniqueFd socket, Connect(addresses_[next_address_++ % addresses_.size()]));
  GrpcSession::Listener& listener = *this;
  connection_ =
      std::make_unique<GrpcConnection>(std::move(socket), GrpcSession::Side::kClient, listener);
  stream_ = 0;
  stuck_ = true;
  reader_.reset();
  arrived_.clear();
  closed_ = absl::OkStatus();
  reactor_.Add(connection_->socket().get(), shared_from_this(), /*write=*/true);
  Later(kConnectTimeout, &DispatchStream::GiveUpConnecting);
  Later(GrpcConnection::kTick, &DispatchStream::Tick);
  return absl::OkStatus();
}

void DispatchStream::GiveUpConnecting(uint64_t attempt) {
  {
    std::lock_guard lock(mutex_);
    if (attempt != attempt_ || up_) return;
  }
  Fail(Error(Reason::kPeerLost, "no answer"));
}

void DispatchStream::Tick(uint64_t attempt) {
  absl::Status status;
  {
    std::lock_guard lock(mutex_);
    if (attempt != attempt_ || !connection_) return;
    status = connection_->Tick();
    if (status.ok()) status = FlushLocked();
    if (status.ok()) Later(GrpcConnection::kTick, &DispatchStream::Tick);
  }
  if (!status.ok()) Fail(status);
}

void DispatchStream::OnReady(std::span<std::byte> scratch) {
  const Turn turn(*this);
  if (!turn.taken) return;
  std::vector<absl::StatusOr<CombineFrame>> answers;
  absl::Status status;
  bool came_up = false;
  {
    std::lock_guard lock(mutex_);
    if (!connection_) return;
    const bool was_up = up_;
    status = ReadLocked(scratch);
    came_up = up_ && !was_up;
    answers.swap(arrived_);
  }
  if (came_up) listener_(true, "grpc");
  Deliver(std::move(answers));
  if (!status.ok()) Fail(status);
}

absl::Status DispatchStream::ReadLocked(std::span<std::byte> scratch) {
  if (stream_ == 0) {
    EM_RETURN_IF_ERROR(ConnectionError(connection_->socket()));
    const bool is_unix = peer_.frames.starts_with("unix:");
    stream_ = connection_->session().Open(kDispatchMethod, is_unix ? "localhost" : peer_.frames,
                                          {{kIncarnationKey, std::to_string(incarnation_)},
                                           {kExpectedKey, std::to_string(peer_.incarnation)}});
  }
  absl::StatusOr<bool> more = true;
  for (int reads = 0; more.ok() && *more && reads < GrpcConnection::kReadsPerTurn; ++reads) {
    more = connection_->Read(scratch);
  }
  absl::Status status = more.status();
  if (status.ok()) status = FlushLocked();
  return closed_.ok() ? status : closed_;
}

absl::Status DispatchStream::FlushLocked() {
  absl::Status status = connection_->Flush();
  if (connection_->stuck() != stuck_) {
    stuck_ = connection_->stuck();
    reactor_.Watch(connection_->socket().get(), /*read=*/true, stuck_);
  }
  return status;
}

// Outside a turn: the socket gets ready, and the turn that follows finds its end.
void DispatchStream::EndSoonLocked() { shutdown(connection_->socket().get(), SHUT_RDWR); }

void DispatchStream::OnFields(int32_t /*stream*/, const Fields& fields) {
  if (FirstOf(fields, kIncarnationKey) == std::to_string(peer_.incarnation)) {
    up_ = true;
    redial_after_ = {};
  } else {
    closed_ = Error(Reason::kPeerLost, "another incarnation answers");
  }
}

void DispatchStream::OnMessage(int32_t /*stream*/, size_t bytes) {
  reader_.emplace(bytes, *buffers_);
}

void DispatchStream::OnBytes(int32_t /*stream*/, std::span<const std::byte> bytes) {
  reader_->Feed(bytes);
  if (reader_->left() > 0) return;
  arrived_.push_back(reader_->Finish());
  // Without a call id nobody can be told: the stream is broken.
  if (!arrived_.back().ok()) closed_ = arrived_.back().status();
}

void DispatchStream::OnClosed(int32_t /*stream*/, const absl::Status& status) {
  closed_ = status.ok() ? Error(Reason::kPeerLost, "closed by the peer") : status;
}

void DispatchStream::Deliver(std::vector<absl::StatusOr<CombineFrame>> answers) {
  for (auto& answer : answers) {
    if (!answer.ok()) continue;
    Call call{};
    {
      std::lock_guard lock(mutex_);
      const auto it = calls_.find(answer->header.call_id());
      if (it == calls_.end()) continue;  // cancelled, or never ours
      call = std::move(it->second);
      calls_.erase(it);
    }
    const absl::Status status = CheckCombine(*answer, call.partials, call.hidden);
    if (status.ok()) {
      call.done(*std::move(answer));
    } else {
      call.done(status);
    }
  }
}

void DispatchStream::DisconnectLocked() {
  up_ = false;
  ++attempt_;
  if (!connection_) return;
  reactor_.Remove(connection_->socket().get());
  connection_.reset();
}

// In a turn: the attempt is over, the next one follows.
void DispatchStream::Fail(const absl::Status& status) {
  std::vector<Completion> failed;
  const std::string why = absl::StrCat("connection to ", peer_.name, " ended: ", status.message());
  {
    std::lock_guard lock(mutex_);
    if (stopped_) return;
    DisconnectLocked();
    failure_ = why;
    failed = TakeCallsLocked();
    const bool more = !addresses_.empty() && next_address_ % addresses_.size() != 0;
    if (!more) redial_after_ = std::clamp(2 * redial_after_, kRedialFirst, kRedialMax);
    Later(more ? std::chrono::milliseconds(0) : redial_after_, &DispatchStream::Dial);
  }
  FailAll(std::move(failed), Error(Reason::kPeerLost, why));
  listener_(false, why);
}

std::vector<Completion> DispatchStream::TakeCallsLocked() {
  std::vector<Completion> taken;
  for (auto& [id, call] : calls_) taken.push_back(std::move(call.done));
  calls_.clear();
  return taken;
}

}  // namespace expertmesh::transport::internal

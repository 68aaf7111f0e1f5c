#include "services/transport/frame_door.h"

#include <sys/socket.h>

#include <cerrno>
#include <cstring>
#include <optional>
#include <utility>
#include <vector>

#include <spdlog/spdlog.h>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "services/base/status.h"
#include "services/rpc/identity.h"
#include "services/transport/grpc_connection.h"
#include "services/transport/stream_socket.h"

namespace expertmesh::transport {

using base::Error;
using base::Reason;
using internal::Fields;
using internal::FirstOf;
using internal::GrpcConnection;
using internal::GrpcSession;
using internal::Reactor;

namespace {

constexpr std::chrono::milliseconds kAcceptAgainAfter{100};
constexpr int kRoundsMax = 64;  // of taking in what has arrived, before it is served
constexpr size_t kFramesPerTurn = 1024;
// Answers that a caller leaves lying; beyond them nothing more is read from it.
constexpr size_t kBacklogMax = size_t{128} << 20;

absl::StatusOr<rpc::Identity> IdentityFrom(const Fields& fields) {
  std::multimap<grpc::string_ref, grpc::string_ref> metadata;
  for (const auto& [name, value] : fields) metadata.emplace(name, value);
  return rpc::IdentityFrom(metadata);
}

}  // namespace

class FrameDoor::Acceptor final : public Reactor::Handler {
 public:
  explicit Acceptor(FrameDoor& door) : door_(door) {}
  void OnReady(std::span<std::byte> /*scratch*/) override { door_.AcceptAll(); }

 private:
  FrameDoor& door_;
};

// One caller's connection. Shared by the door and the replies that are still out.
class FrameDoor::Connection final : public Reactor::Handler,
                                    private GrpcSession::Listener,
                                    public std::enable_shared_from_this<Connection> {
 public:
  Connection(FrameDoor& door, UniqueFd socket)
      : door_(door), connection_(std::move(socket), GrpcSession::Side::kServer, *this) {}

  void Begin() {
    const int fd = connection_.socket().get();
    door_.reactor_.Add(fd, shared_from_this(), /*write=*/false);
    PlanTick();
    std::lock_guard lock(mutex_);
    Flush();
  }

  // No new streams; true if none is open.
  bool Leave() {
    std::lock_guard lock(mutex_);
    if (closed_) return true;
    connection_.session().GoAway();
    leaving_ = true;
    return !FlushLocked().ok() || IsThroughLocked();
  }

  // Nothing of it is sent or served any more.
  void Close() {
    std::lock_guard lock(mutex_);
    if (std::exchange(closed_, true)) return;
    door_.reactor_.Remove(connection_.socket().get());
    shutdown(connection_.socket().get(), SHUT_RDWR);
  }

 private:
  struct Stream {
    bool accepted = false;
    bool half_closed = false;
    size_t owed = 0;  // calls that are not done with
    std::optional<FrameReader<DispatchFrame>> reader;
  };
  struct Arrived {
    int32_t stream;
    absl::StatusOr<DispatchFrame> frame;
  };
  // Lives as long as anyone can still answer the call.
  struct OpenCall {
    OpenCall(std::shared_ptr<Connection> c, int32_t s) : connection(std::move(c)), stream(s) {}
    ~OpenCall() { connection->Settle(stream); }
    OpenCall(const OpenCall&) = delete;
    OpenCall& operator=(const OpenCall&) = delete;
    const std::shared_ptr<Connection> connection;
    const int32_t stream;
  };

  void OnReady(std::span<std::byte> scratch) override {
    std::vector<Arrived> arrived;
    bool over = false;
    std::string fault;
    {
      std::lock_guard lock(mutex_);
      if (closed_) return;
      absl::StatusOr<bool> more = reads_;
      for (int reads = 0; more.ok() && *more && reads < GrpcConnection::kReadsPerTurn &&
                          arrived_.size() < kFramesPerTurn;
           ++reads) {
        more = connection_.Read(scratch);
      }
      over = !more.ok() || !FlushLocked().ok() || (leaving_ && IsThroughLocked());
      fault = connection_.session().TakeFault();
      arrived.swap(arrived_);
    }
    if (!fault.empty()) door_.options_.broken(fault);
    for (Arrived& one : arrived) Serve(std::move(one));
    if (over) End();
  }

  void Serve(Arrived arrived) {
    auto open = std::make_shared<OpenCall>(shared_from_this(), arrived.stream);
    door_.options_.handler(std::move(arrived.frame), [open](CombineFrame answer) {
      open->connection->Push(open->stream, std::move(answer));
    });
  }

  void Push(int32_t stream, CombineFrame answer) {
    internal::OutMessage message;
    message.prefix = MessagePrefix(answer.header.SerializeAsString(), answer.payload.size());
    message.payload = std::move(answer.payload);
    std::lock_guard lock(mutex_);
    if (closed_) return;
    connection_.session().Send(stream, std::move(message));
    Flush();
  }

  // A call is done with: answered, or its reply was thrown away.
  void Settle(int32_t stream) {
    std::lock_guard lock(mutex_);
    const auto it = streams_.find(stream);
    if (closed_ || it == streams_.end()) return;
    --it->second.owed;
    FinishIfAnswered(stream, it->second);
    Flush();
  }

  void FinishIfAnswered(int32_t id, const Stream& stream) {
    if (stream.half_closed && stream.owed == 0) {
      connection_.session().Finish(id, absl::OkStatus());
    }
  }

  // Every answer of a stream that is over has left as well.
  bool IsThroughLocked() const { return streams_.empty() && !connection_.stuck(); }

  absl::Status FlushLocked() {
    absl::Status status = connection_.Flush();
    const bool reads = connection_.session().backlog() < kBacklogMax;
    if (connection_.stuck() != stuck_ || reads != reads_) {
      stuck_ = connection_.stuck();
      reads_ = reads;
      door_.reactor_.Watch(connection_.socket().get(), reads_, stuck_);
    }
    return status;
  }
  // Outside a turn, under the lock: after an error the socket gets ready, and the turn that follows
  // finds it.
  void Flush() {
    if (!FlushLocked().ok()) shutdown(connection_.socket().get(), SHUT_RDWR);
  }

  void PlanTick() {
    door_.reactor_.At(Reactor::Clock::now() + GrpcConnection::kTick, [weak = weak_from_this()] {
      if (const std::shared_ptr<Connection> connection = weak.lock()) connection->Tick();
    });
  }
  void Tick() {
    {
      std::lock_guard lock(mutex_);
      if (closed_) return;
      if (connection_.Tick().ok() && FlushLocked().ok()) return PlanTick();
    }
    End();
  }

  // On the door's thread: the caller is gone.
  void End() {
    const std::shared_ptr<Connection> keep = shared_from_this();
    Close();
    door_.Forget(connection_.socket().get());
  }

  void OnFields(int32_t id, const Fields& fields) override {
    Stream& stream = streams_[id];
    const absl::Status status = Check(fields);
    stream.accepted = status.ok();
    if (!status.ok()) return connection_.session().Finish(id, status);
    connection_.session().Accept(
        id, {{internal::kIncarnationKey, std::to_string(door_.options_.incarnation)}});
  }

  absl::Status Check(const Fields& fields) const {
    if (FirstOf(fields, ":method") != "POST" ||
        !absl::StartsWith(FirstOf(fields, "content-type"), "application/grpc")) {
      return Error(Reason::kUnsupported, "only gRPC is spoken at this address");
    }
    const std::string path = FirstOf(fields, ":path");
    if (path != kDispatchMethod) {
      return Error(Reason::kUnsupported, absl::StrCat(path, " is not served at this address"));
    }
    EM_RETURN_IF_ERROR(IdentityFrom(fields).status());
    const std::string expected = FirstOf(fields, internal::kExpectedKey);
    if (!expected.empty() && expected != std::to_string(door_.options_.incarnation)) {
      return Error(Reason::kPeerLost, "another incarnation of this worker was expected");
    }
    return absl::OkStatus();
  }

  void OnMessage(int32_t id, size_t bytes) override {
    Stream& stream = streams_[id];
    if (stream.accepted) stream.reader.emplace(bytes, *door_.buffers_);
  }

  void OnBytes(int32_t id, std::span<const std::byte> bytes) override {
    Stream& stream = streams_[id];
    if (!stream.accepted) return;
    stream.reader->Feed(bytes);
    if (stream.reader->left() > 0) return;
    ++stream.owed;
    arrived_.push_back({id, stream.reader->Finish()});
  }

  void OnHalfClose(int32_t id) override {
    Stream& stream = streams_[id];
    stream.half_closed = true;
    if (stream.accepted) FinishIfAnswered(id, stream);
  }

  void OnClosed(int32_t id, const absl::Status& /*status*/) override { streams_.erase(id); }

  FrameDoor& door_;   // not touched once closed
  std::mutex mutex_;  // guards all below
  GrpcConnection connection_;
  bool stuck_ = false;
  bool reads_ = true;
  bool leaving_ = false;
  bool closed_ = false;
  std::map<int32_t, Stream> streams_;
  std::vector<Arrived> arrived_;
};

FrameDoor::FrameDoor(Options options)
    : options_(std::move(options)), buffers_(std::make_shared<BufferPool>()) {}

absl::StatusOr<std::unique_ptr<FrameDoor>> FrameDoor::Start(Options options) {
  std::unique_ptr<FrameDoor> door(new FrameDoor(std::move(options)));
  EM_ASSIGN_OR_RETURN(door->listener_, internal::ListenAt(door->options_.listen, door->address_));
  door->reactor_.Add(door->listener_.get(), std::make_shared<Acceptor>(*door), /*write=*/false);
  door->thread_ = std::thread([raw = door.get()] { raw->Run(); });
  return door;
}

FrameDoor::~FrameDoor() { Stop(std::chrono::milliseconds(0)); }

void FrameDoor::Stop(std::chrono::milliseconds grace) {
  if (!thread_.joinable()) return;
  const auto end = std::chrono::steady_clock::now() + grace;
  std::map<int, std::shared_ptr<Connection>> connections;
  {
    std::lock_guard lock(mutex_);
    accepts_ = false;
    connections = connections_;
  }
  reactor_.Remove(listener_.get());
  shutdown(listener_.get(), SHUT_RDWR);  // callers are refused at once
  for (const auto& [fd, connection] : connections) {
    if (connection->Leave()) Forget(fd);
  }
  {
    std::unique_lock lock(mutex_);
    forgotten_.wait_until(lock, end, [&] { return connections_.empty(); });
    stop_ = true;
  }
  reactor_.Kick();
  thread_.join();
  for (const auto& [fd, connection] : connections) connection->Close();
  for (const auto& [fd, connection] : std::exchange(connections_, {})) connection->Close();
  listener_ = UniqueFd();
}

void FrameDoor::AcceptAll() {
  for (;;) {
    UniqueFd socket = internal::Accept(listener_);
    if (!socket.valid()) break;
    const int fd = socket.get();
    auto connection = std::make_shared<Connection>(*this, std::move(socket));
    {
      std::lock_guard lock(mutex_);
      if (!accepts_) return;
      connections_[fd] = connection;
    }
    connection->Begin();
  }
  if (errno == EAGAIN || errno == EWOULDBLOCK || errno == ECONNABORTED) return;
  // No descriptor is left: the waiting connections would make the listener ready for ever.
  spdlog::warn("no dispatch stream can be taken at {}: {}", address_, strerror(errno));
  reactor_.Remove(listener_.get());
  reactor_.At(Reactor::Clock::now() + kAcceptAgainAfter, [this] {
    std::lock_guard lock(mutex_);
    if (accepts_) reactor_.Add(listener_.get(), std::make_shared<Acceptor>(*this), false);
  });
}

void FrameDoor::Forget(int fd) {
  {
    std::lock_guard lock(mutex_);
    connections_.erase(fd);
  }
  forgotten_.notify_all();
}

void FrameDoor::Run() {
  for (;;) {
    bool ready = reactor_.Poll({}, std::nullopt);
    const bool any = ready;
    for (int rounds = 0; ready && rounds < kRoundsMax; ++rounds) {
      ready = reactor_.Poll({}, base::Micros(0));
    }
    if (any) options_.drained();
    std::lock_guard lock(mutex_);
    if (stop_) return;
  }
}

}  // namespace expertmesh::transport

#include "services/transport/grpc_transport.h"

#include <grpcpp/alarm.h>
#include <grpcpp/generic/generic_stub.h>

#include <chrono>
#include <condition_variable>
#include <deque>
#include <unordered_map>
#include <utility>
#include <vector>

#include "services/base/status.h"
#include "services/rpc/channel.h"
#include "services/rpc/status.h"
#include "services/transport/byte_buffer.h"

namespace expertmesh::transport {
namespace internal {
namespace {

using base::Error;
using base::Reason;

constexpr char kMethod[] = "/expertmesh.expert.v1.ExpertService/Dispatch";
constexpr auto kRedialAfter = std::chrono::milliseconds(100);

}  // namespace

/// One stream to one peer, redialled until stopped. Shared with the gRPC reactors it starts.
class DispatchStream : public std::enable_shared_from_this<DispatchStream> {
 public:
  using UpListener = std::function<void(bool up, const std::string& why)>;

  DispatchStream(Peer peer, uint64_t incarnation, std::shared_ptr<BufferPool> buffers,
                 UpListener listener)
      : peer_(std::move(peer)),
        incarnation_(incarnation),
        buffers_(std::move(buffers)),
        listener_(std::move(listener)),
        stub_(rpc::MakeChannel(peer_.address)) {}

  void Start() {
    std::lock_guard lock(mutex_);
    DialLocked();
  }

  // Completes everything in flight and waits until no callback runs any more.
  void Stop(const std::string& why) {
    std::unique_lock lock(mutex_);
    stopped_ = true;
    if (reactor_ != nullptr) reactor_->context.TryCancel();
    alarm_.Cancel();
    auto failed = TakeCallsLocked();
    lock.unlock();
    FailAll(std::move(failed), Error(Reason::kPeerLost, why));
    lock.lock();
    idle_.wait(lock, [&] { return reactor_ == nullptr && !alarm_set_; });
  }

  void Submit(DispatchFrame frame, Completion done) {
    const uint64_t call_id = frame.header.call_id();
    Call call{frame.header.partial_count(), frame.header.hidden_size(), std::move(done)};
    grpc::ByteBuffer message = ToByteBuffer(std::move(frame));
    std::unique_lock lock(mutex_);
    if (!up_) {
      lock.unlock();
      call.done(Error(Reason::kPeerLost, "no connection to " + peer_.name));
      return;
    }
    calls_.emplace(call_id, std::move(call));
    writes_.push_back(std::move(message));
    if (writes_.size() == 1) reactor_->StartWrite(&writes_.front());
  }

  bool Cancel(uint64_t call_id) {
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

 private:
  struct Call {
    size_t partials;
    size_t hidden;
    Completion done;
  };

  // Lives from dial to OnDone; deletes itself.
  struct Reactor final : grpc::ClientBidiReactor<grpc::ByteBuffer, grpc::ByteBuffer> {
    explicit Reactor(std::shared_ptr<DispatchStream> s) : stream(std::move(s)) {}
    void OnReadInitialMetadataDone(bool ok) override { stream->Connected(*this, ok); }
    void OnReadDone(bool ok) override { stream->Received(*this, ok); }
    void OnWriteDone(bool ok) override { stream->Written(*this, ok); }
    void OnDone(const grpc::Status& status) override {
      auto keep = std::move(stream);
      keep->Ended(status);
      delete this;
    }
    std::shared_ptr<DispatchStream> stream;
    grpc::ClientContext context;
    grpc::ByteBuffer answer;
  };

  void DialLocked() {
    if (stopped_ || reactor_ != nullptr) return;
    auto* reactor = new Reactor(shared_from_this());
    reactor_ = reactor;
    reactor->context.set_wait_for_ready(true);
    reactor->context.AddMetadata(kIncarnationKey, std::to_string(incarnation_));
    reactor->context.AddMetadata(kExpectedKey, std::to_string(peer_.incarnation));
    stub_.PrepareBidiStreamingCall(&reactor->context, kMethod, grpc::StubOptions(), reactor);
    reactor->StartRead(&reactor->answer);
    // Holds the call open: writes start from outside of reactions.
    reactor->AddHold();
    reactor->StartCall();
  }

  void Connected(Reactor& reactor, bool ok) {
    const std::string why = "grpc";
    {
      std::lock_guard lock(mutex_);
      if (!ok || stopped_) return;
      const auto& metadata = reactor.context.GetServerInitialMetadata();
      const auto theirs = metadata.find(kIncarnationKey);
      if (theirs == metadata.end() || std::string(theirs->second.data(), theirs->second.size()) !=
                                          std::to_string(peer_.incarnation)) {
        reactor.context.TryCancel();
        return;
      }
      up_ = true;
    }
    listener_(true, why);
  }

  void Received(Reactor& reactor, bool ok) {
    if (!ok) {
      Release(reactor);
      return;
    }
    auto frame = FromByteBuffer(reactor.answer, ParseCombineFrame, *buffers_);
    reactor.answer.Clear();
    reactor.StartRead(&reactor.answer);
    if (!frame.ok()) {
      // Without a call id nobody can be told: the stream is broken.
      reactor.context.TryCancel();
      return;
    }
    Call call{};
    {
      std::lock_guard lock(mutex_);
      const auto it = calls_.find(frame->header.call_id());
      if (it == calls_.end()) return;  // cancelled, or never ours
      call = std::move(it->second);
      calls_.erase(it);
    }
    const absl::Status status = CheckCombine(*frame, call.partials, call.hidden);
    if (status.ok()) {
      call.done(*std::move(frame));
    } else {
      call.done(status);
    }
  }

  void Written(Reactor& reactor, bool ok) {
    std::lock_guard lock(mutex_);
    writes_.pop_front();
    if (!ok || !up_) {
      writes_.clear();
    } else if (!writes_.empty()) {
      reactor.StartWrite(&writes_.front());
    }
  }

  // The read side ended: no more writes, give up the hold so that OnDone can come.
  void Release(Reactor& reactor) {
    {
      std::lock_guard lock(mutex_);
      up_ = false;
    }
    reactor.context.TryCancel();
    reactor.RemoveHold();
  }

  void Ended(const grpc::Status& status) {
    const absl::Status reason = rpc::FromGrpcStatus(status);
    const std::string why = "connection to " + peer_.name + " ended: " +
                            (status.ok() ? "closed by the peer" : status.error_message());
    std::vector<Completion> failed;
    {
      std::lock_guard lock(mutex_);
      up_ = false;
      writes_.clear();
      failed = TakeCallsLocked();
    }
    FailAll(std::move(failed), Error(Reason::kPeerLost, why));
    listener_(false, why);
    std::lock_guard lock(mutex_);
    reactor_ = nullptr;
    if (!stopped_) {
      alarm_set_ = true;
      alarm_.Set(std::chrono::system_clock::now() + kRedialAfter,
                 [weak = weak_from_this()](bool /*fired*/) {
                   if (const auto self = weak.lock()) self->Redial();
                 });
    }
    idle_.notify_all();
  }

  void Redial() {
    std::lock_guard lock(mutex_);
    alarm_set_ = false;
    DialLocked();
    idle_.notify_all();
  }

  std::vector<Completion> TakeCallsLocked() {
    std::vector<Completion> taken;
    for (auto& [id, call] : calls_) taken.push_back(std::move(call.done));
    calls_.clear();
    return taken;
  }
  static void FailAll(std::vector<Completion> calls, const absl::Status& status) {
    for (Completion& done : calls) done(status);
  }

  const Peer peer_;
  const uint64_t incarnation_;
  const std::shared_ptr<BufferPool> buffers_;
  const UpListener listener_;
  grpc::GenericStub stub_;
  std::mutex mutex_;
  std::condition_variable idle_;
  Reactor* reactor_ = nullptr;                // guarded by mutex_
  grpc::Alarm alarm_;                         // guarded by mutex_
  bool alarm_set_ = false;                    // guarded by mutex_
  bool up_ = false;                           // guarded by mutex_
  bool stopped_ = false;                      // guarded by mutex_
  std::unordered_map<uint64_t, Call> calls_;  // guarded by mutex_
  std::deque<grpc::ByteBuffer> writes_;       // guarded by mutex_; front() is being written
};

}  // namespace internal

GrpcTransport::GrpcTransport(uint64_t incarnation, PeerListener listener)
    : incarnation_(incarnation),
      listener_(std::move(listener)),
      buffers_(std::make_shared<BufferPool>()) {}

GrpcTransport::~GrpcTransport() {
  std::map<std::string, Link> links;
  {
    std::lock_guard lock(mutex_);
    links.swap(links_);
  }
  for (auto& [name, link] : links) StopLink(std::move(link), "the transport stopped");
}

Capabilities GrpcTransport::capabilities() const {
  return {.dynamic_peers = true, .reorders = true, .cancels = true};
}

void GrpcTransport::AddPeer(const Peer& peer) {
  Link old;
  {
    std::lock_guard lock(mutex_);
    const auto it = links_.find(peer.name);
    if (it != links_.end()) {
      if (it->second.peer.incarnation == peer.incarnation &&
          it->second.peer.address == peer.address) {
        return;
      }
      old = std::move(it->second);
      links_.erase(it);
    }
  }
  StopLink(std::move(old), "replaced by a newer incarnation");
  // A peer is up while all of its streams are.
  struct UpCount {
    std::mutex mutex;
    size_t up = 0;
  };
  auto count = std::make_shared<UpCount>();
  Link link;
  link.peer = peer;
  for (auto& stream : link.streams) {
    auto was_up = std::make_shared<bool>(false);
    stream = std::make_shared<internal::DispatchStream>(
        peer, incarnation_, buffers_,
        [this, count, was_up, name = peer.name, all = link.streams.size()](bool up,
                                                                           const std::string& why) {
          bool change = false;
          {
            std::lock_guard lock(count->mutex);
            if (*was_up == up) return;
            const bool before = count->up == all;
            *was_up = up;
            count->up += up ? 1 : -1;
            change = before != (count->up == all);
          }
          if (change && listener_) listener_(name, up, why);
        });
  }
  std::lock_guard lock(mutex_);
  for (auto& stream : link.streams) stream->Start();
  links_.emplace(peer.name, std::move(link));
}

void GrpcTransport::RemovePeer(const std::string& name) {
  Link link;
  {
    std::lock_guard lock(mutex_);
    const auto it = links_.find(name);
    if (it == links_.end()) return;
    link = std::move(it->second);
    links_.erase(it);
  }
  StopLink(std::move(link), "peer " + name + " was removed");
}

void GrpcTransport::StopLink(Link link, const std::string& why) {
  for (auto& stream : link.streams) {
    if (stream) stream->Stop(why);
  }
}

void GrpcTransport::Submit(const std::string& peer, Purpose purpose, DispatchFrame frame,
                           Completion done) {
  std::shared_ptr<internal::DispatchStream> stream;
  {
    std::lock_guard lock(mutex_);
    const auto it = links_.find(peer);
    if (it != links_.end()) stream = it->second.streams[static_cast<size_t>(purpose)];
  }
  if (stream) {
    stream->Submit(std::move(frame), std::move(done));
  } else {
    done(base::Error(base::Reason::kPeerLost, "no peer named " + peer));
  }
}

void GrpcTransport::Cancel(uint64_t call_id) {
  std::vector<std::shared_ptr<internal::DispatchStream>> streams;
  {
    std::lock_guard lock(mutex_);
    for (auto& [name, link] : links_)
      streams.insert(streams.end(), link.streams.begin(), link.streams.end());
  }
  for (auto& stream : streams) {
    if (stream->Cancel(call_id)) return;
  }
}

}  // namespace expertmesh::transport

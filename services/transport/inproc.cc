#include "services/transport/inproc.h"

#include <utility>
#include <vector>

#include "services/base/status.h"

namespace expertmesh::transport {

using base::Error;
using base::Reason;

InprocTransport::InprocTransport(FrameHandler handler, PeerListener listener)
    : handler_(std::move(handler)), listener_(std::move(listener)), thread_([this] { Run(); }) {}

InprocTransport::~InprocTransport() {
  {
    std::lock_guard lock(mutex_);
    stop_ = true;
  }
  wake_.notify_all();
  thread_.join();
  FailWhere([](const Call&) { return true; }, Error(Reason::kCancelled, "the transport stopped"));
}

Capabilities InprocTransport::capabilities() const {
  return {.dynamic_peers = true, .reorders = false, .cancels = true};
}

void InprocTransport::AddPeer(const Peer& peer) {
  {
    std::lock_guard lock(mutex_);
    peers_.insert(peer.name);
  }
  if (listener_) listener_(peer.name, true, "in process");
}

void InprocTransport::RemovePeer(const std::string& name) {
  {
    std::lock_guard lock(mutex_);
    if (peers_.erase(name) == 0) return;
  }
  FailWhere([&](const Call& call) { return call.peer == name; },
            Error(Reason::kPeerLost, "peer " + name + " was removed"));
  if (listener_) listener_(name, false, "removed");
}

void InprocTransport::Submit(const std::string& peer, Purpose /*purpose*/, DispatchFrame frame,
                             Completion done) {
  {
    std::lock_guard lock(mutex_);
    if (peers_.contains(peer)) {
      const uint64_t call_id = frame.header.call_id();
      queue_.push_back({peer, call_id, std::move(frame), std::move(done)});
      wake_.notify_one();
      return;
    }
  }
  done(Error(Reason::kPeerLost, "no peer named " + peer));
}

void InprocTransport::Cancel(uint64_t call_id) {
  FailWhere([&](const Call& call) { return call.call_id == call_id; },
            Error(Reason::kCancelled, "the call was cancelled"));
}

void InprocTransport::FailWhere(const std::function<bool(const Call&)>& match,
                                const absl::Status& status) {
  std::vector<Completion> failed;
  {
    std::lock_guard lock(mutex_);
    for (Call& call : queue_) {
      if (call.done && match(call)) failed.push_back(std::exchange(call.done, nullptr));
    }
    std::erase_if(queue_, [](const Call& call) { return !call.done; });
  }
  for (Completion& done : failed) done(status);
}

void InprocTransport::Run() {
  std::unique_lock lock(mutex_);
  for (;;) {
    wake_.wait(lock, [&] { return stop_ || !queue_.empty(); });
    if (stop_) return;
    Call call = std::move(queue_.front());
    queue_.pop_front();
    lock.unlock();
    const size_t partials = call.frame.header.partial_count();
    const size_t hidden = call.frame.header.hidden_size();
    // The handler of a process replies before it returns or later; both end in one completion.
    handler_(std::move(call.frame),
             [partials, hidden, done = std::move(call.done)](CombineFrame answer) {
               const absl::Status status = CheckCombine(answer, partials, hidden);
               if (status.ok()) {
                 done(std::move(answer));
               } else {
                 done(status);
               }
             });
    lock.lock();
  }
}

}  // namespace expertmesh::transport

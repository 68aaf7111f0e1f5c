#include "services/transport/inproc.h"

#include <unordered_map>
#include <utility>
#include <vector>

#include "services/base/status.h"

namespace expertmesh::transport {

using base::Error;
using base::Reason;

// The calls without an answer, queued or with the handler: whoever takes one out completes it,
// once.
struct InprocTransport::Calls {
  struct Call {
    std::string peer;
    Completion done;
  };

  void Add(uint64_t call_id, Call call) {
    std::lock_guard lock(mutex);
    open.emplace(call_id, std::move(call));
  }
  // Null if it has been completed.
  Completion Take(uint64_t call_id) {
    std::lock_guard lock(mutex);
    const auto it = open.find(call_id);
    if (it == open.end()) return nullptr;
    Completion done = std::move(it->second.done);
    open.erase(it);
    return done;
  }
  void FailWhere(const std::function<bool(const Call&)>& match, const absl::Status& status) {
    std::vector<Completion> failed;
    {
      std::lock_guard lock(mutex);
      for (auto it = open.begin(); it != open.end();) {
        if (!match(it->second)) {
          ++it;
          continue;
        }
        failed.push_back(std::move(it->second.done));
        it = open.erase(it);
      }
    }
    for (Completion& done : failed) done(status);
  }

  std::mutex mutex;
  std::unordered_map<uint64_t, Call> open;  // guarded by mutex
};

InprocTransport::InprocTransport(FrameHandler handler, PeerListener listener)
    : handler_(std::move(handler)),
      listener_(std::move(listener)),
      calls_(std::make_shared<Calls>()),
      thread_([this] { Run(); }) {}

InprocTransport::~InprocTransport() {
  {
    std::lock_guard lock(mutex_);
    stop_ = true;
  }
  wake_.notify_all();
  thread_.join();
  calls_->FailWhere([](const Calls::Call&) { return true; },
                    Error(Reason::kCancelled, "the transport stopped"));
}

Capabilities InprocTransport::capabilities() const {
  return {.dynamic_peers = true, .reorders = false, .cancels = true};
}

void InprocTransport::AddPeer(const Peer& peer) {
  {
    std::lock_guard lock(mutex_);
    peers_.insert(peer.name);
  }
  if (listener_) listener_(peer.name, true, "inproc");
}

void InprocTransport::RemovePeer(const std::string& name) {
  {
    std::lock_guard lock(mutex_);
    if (peers_.erase(name) == 0) return;
  }
  calls_->FailWhere([&](const Calls::Call& call) { return call.peer == name; },
                    Error(Reason::kPeerLost, "peer " + name + " was removed"));
  if (listener_) listener_(name, false, "removed");
}

void InprocTransport::Submit(const std::string& peer, Purpose /*purpose*/, DispatchFrame frame,
                             Completion done) {
  {
    std::lock_guard lock(mutex_);
    if (peers_.contains(peer)) {
      const uint64_t call_id = frame.header.call_id();
      calls_->Add(call_id, {peer, std::move(done)});
      queue_.push_back({call_id, std::move(frame)});
      wake_.notify_one();
      return;
    }
  }
  done(Error(Reason::kPeerLost, "no peer named " + peer));
}

void InprocTransport::Cancel(uint64_t call_id) {
  if (const Completion done = calls_->Take(call_id)) {
    done(Error(Reason::kCancelled, "the call was cancelled"));
  }
}

void InprocTransport::Run() {
  std::unique_lock lock(mutex_);
  for (;;) {
    wake_.wait(lock, [&] { return stop_ || !queue_.empty(); });
    if (stop_) return;
    Queued call = std::move(queue_.front());
    queue_.pop_front();
    lock.unlock();
    const size_t partials = call.frame.header.partial_count();
    const size_t hidden = call.frame.header.hidden_size();
    // The handler may reply before it returns, later, or after a cancel: then nobody waits any
    // more.
    handler_(std::move(call.frame),
             [partials, hidden, id = call.call_id, calls = calls_](CombineFrame answer) {
               const Completion done = calls->Take(id);
               if (!done) return;
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

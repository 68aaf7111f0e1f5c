// What NCCL is, as a fake: peers fixed at the start, answers in the order of the calls, buffers
// registered in advance, sizes announced before any byte. A peer that goes ends all of it.
#pragma once

#include <condition_variable>
#include <cstring>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "services/base/status.h"
#include "services/transport/transport.h"

namespace expertmesh::transport {

class FixedTransport final : public Transport {
 public:
  static constexpr size_t kRowsMax = 32768;
  static constexpr size_t kSlotBytes = size_t{4} << 20;
  static constexpr size_t kSlots = 8;

  FixedTransport(const std::vector<std::string>& peers, FrameHandler handler, PeerListener listener)
      : handler_(std::move(handler)), listener_(std::move(listener)) {
    for (const std::string& peer : peers) {
      auto& channel = channels_[peer];
      for (size_t i = 0; i < kSlots; ++i) channel.free_slots.emplace_back(kSlotBytes);
    }
    thread_ = std::thread([this] { Run(); });
  }
  ~FixedTransport() override {
    Abort(base::Error(base::Reason::kCancelled, "the transport stopped"), true);
    thread_.join();
  }

  Capabilities capabilities() const override { return {.announces_sizes = true}; }
  void AddPeer(const Peer& peer) override {
    const bool known = channels_.contains(peer.name);
    listener_(peer.name, known, known ? "fixed" : "the peers were fixed at the start");
  }
  /// There is no going on without one of the peers.
  void RemovePeer(const std::string& name) override {
    Abort(base::Error(base::Reason::kPeerLost, "peer " + name + " was removed"), false);
    listener_(name, false, "removed");
  }
  void Submit(const std::string& peer, Purpose, DispatchFrame frame, Completion done) override {
    const size_t answer = size_t{frame.header.partial_count()} * frame.header.hidden_size() * 4;
    std::unique_lock lock(mutex_);
    const auto it = channels_.find(peer);
    if (it == channels_.end() || aborted_) {
      lock.unlock();
      return done(base::Error(base::Reason::kPeerLost, "no peer named " + peer));
    }
    if (frame.payload.size() > kSlotBytes || answer > kSlotBytes) {
      lock.unlock();
      return done(base::Error(base::Reason::kFrameMalformed, "no registered buffer is so large"));
    }
    it->second.queue.push_back({std::move(frame), answer, std::move(done)});
    wake_.notify_all();
  }
  void Cancel(uint64_t) override {}

 private:
  struct Call {
    DispatchFrame frame;
    size_t answer_bytes;
    Completion done;
  };
  struct Channel {
    std::vector<Buffer> free_slots;
    std::deque<Call> queue;
  };

  void Abort(const absl::Status& status, bool stop) {
    std::vector<Completion> failed;
    {
      std::lock_guard lock(mutex_);
      aborted_ = true;
      stop_ = stop_ || stop;
      for (auto& [name, channel] : channels_) {
        for (Call& call : channel.queue) failed.push_back(std::move(call.done));
        channel.queue.clear();
      }
      wake_.notify_all();
    }
    for (Completion& done : failed) done(status);
  }
  Channel* Next() {
    for (auto& [name, channel] : channels_) {
      if (!channel.queue.empty()) return &channel;
    }
    return nullptr;
  }
  // One call at a time: sizes, then the payload into a registered buffer, then the answer.
  void Run() {
    std::unique_lock lock(mutex_);
    for (;;) {
      wake_.wait(lock, [&] { return stop_ || Next() != nullptr; });
      if (stop_) return;
      Channel& channel = *Next();
      Call call = std::move(channel.queue.front());
      channel.queue.pop_front();
      Buffer slot = std::move(channel.free_slots.back());
      channel.free_slots.pop_back();
      lock.unlock();
      CombineFrame answer = Exchange(call, slot);
      lock.lock();
      channel.free_slots.push_back(std::move(slot));
      const bool aborted = aborted_;
      lock.unlock();
      Finish(call, std::move(answer), aborted);
      lock.lock();
    }
  }
  CombineFrame Exchange(const Call& call, Buffer& slot) {
    const size_t announced = call.frame.payload.size();
    if (announced > 0) std::memcpy(slot.data(), call.frame.payload.data(), announced);
    DispatchFrame received{call.frame.header, Buffer(announced)};
    if (announced > 0) std::memcpy(received.payload.data(), slot.data(), announced);
    struct Box {
      std::mutex mutex;
      std::condition_variable came;
      bool here = false;
      CombineFrame answer;
    };
    const auto box = std::make_shared<Box>();
    handler_(std::move(received), [box](CombineFrame answer) {
      std::lock_guard lock(box->mutex);
      box->answer = std::move(answer);
      box->here = true;
      box->came.notify_all();
    });
    std::unique_lock lock(box->mutex);
    box->came.wait(lock, [&] { return box->here; });
    return std::move(box->answer);
  }
  static void Finish(Call& call, CombineFrame answer, bool aborted) {
    const DispatchHeader& h = call.frame.header;
    absl::Status status = CheckCombine(answer, h.partial_count(), h.hidden_size());
    if (aborted) status = base::Error(base::Reason::kPeerLost, "the communicator was aborted");
    if (status.ok()) {
      call.done(std::move(answer));
    } else {
      call.done(status);
    }
  }

  const FrameHandler handler_;
  const PeerListener listener_;
  std::mutex mutex_;
  std::condition_variable wake_;
  std::map<std::string, Channel> channels_;  // queues and slots guarded by mutex_
  bool aborted_ = false;                     // guarded by mutex_
  bool stop_ = false;                        // guarded by mutex_
  std::thread thread_;
};

}  // namespace expertmesh::transport

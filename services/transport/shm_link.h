// The attention worker's end of an agreed segment: calls into the request rings, answers out of the
// answer rings (docs/protocol.md §6).
#pragma once

#include <array>
#include <atomic>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <unordered_map>

#include "services/transport/shm_segment.h"
#include "services/transport/transport.h"

namespace expertmesh::transport {

/// Any thread, but for what is said to be the receiver's: one thread at a time. A broken link stays
/// broken.
class ShmLink {
 public:
  ShmLink(std::string peer, std::unique_ptr<ShmSegment> segment, UniqueFd socket,
          std::shared_ptr<BufferPool> buffers);
  /// Calls in flight end with kPeerLost.
  ~ShmLink();

  /// Takes the frame and the completion if call and answer fit; else leaves both alone.
  bool TrySubmit(Purpose purpose, DispatchFrame& frame, Completion& done);
  /// False if the call is not here.
  bool Cancel(uint64_t call_id);
  /// Calls in flight end with kPeerLost, which names the reason.
  void Break(const std::string& why);
  bool broken() const { return broken_.load(std::memory_order_acquire); }
  std::string why() const;
  int fd() const { return socket_.get(); }

  /// Receiver: an answer, or a fault, waits.
  bool Ready() const;
  /// Receiver: takes in what is there. True if there was anything.
  bool Receive();
  /// Receiver: true if it may sleep on fd() now; then Awake.
  bool PrepareSleep();
  /// Receiver: `signalled` if poll reported anything for fd().
  void Awake(bool signalled);

 private:
  struct Call {
    size_t partials = 0;
    size_t hidden = 0;
    size_t reserved = 0;  // bytes of the answer ring
    Purpose purpose = Purpose::kDecode;
    Completion done;  // null once it was cancelled: its answer is still to come
  };
  struct Lane {
    Lane(RingView requests, RingView answers) : writer(requests), reader(answers) {}
    RingWriter writer;        // guarded by mutex_
    RingReader reader;        // the receiver's
    size_t reserved = 0;      // guarded by mutex_; of the answer ring
    size_t answer_bytes = 0;  // capacity of the answer ring
  };

  bool ReceiveOne(Purpose purpose);
  void Complete(Purpose purpose, CombineFrame frame);
  void BreakLocked(const std::string& why);

  const std::string peer_;
  const std::unique_ptr<ShmSegment> segment_;
  const UniqueFd socket_;
  const std::shared_ptr<BufferPool> buffers_;
  std::atomic<bool> broken_{false};
  mutable std::mutex mutex_;
  std::array<Lane, 2> lanes_;                 // by Purpose
  std::string why_;                           // guarded by mutex_
  std::unordered_map<uint64_t, Call> calls_;  // guarded by mutex_
};

}  // namespace expertmesh::transport

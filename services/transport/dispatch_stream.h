// One gRPC stream of dispatch frames to one peer, dialled again until stopped.
#pragma once

#include <grpcpp/alarm.h>
#include <grpcpp/generic/generic_stub.h>

#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>
#include <vector>

#include "services/transport/completion_poller.h"
#include "services/transport/transport.h"

namespace expertmesh::transport::internal {

/// Thread-safe. Its events are handled by the threads that poll.
class DispatchStream final : public std::enable_shared_from_this<DispatchStream>,
                             private CompletionTag {
 public:
  using UpListener = std::function<void(bool up, const std::string& why)>;

  /// `incarnation` is ours. `poller` outlives the stream.
  DispatchStream(Peer peer, uint64_t incarnation, std::shared_ptr<BufferPool> buffers,
                 CompletionPoller& poller, UpListener listener);
  ~DispatchStream() override;

  void Start();
  /// Completes everything in flight and waits until nothing of the stream runs any more.
  void Stop(const std::string& why);
  void Submit(DispatchFrame frame, Completion done);
  /// False if no such call is in flight here.
  bool Cancel(uint64_t call_id);

 private:
  struct Call {
    size_t partials;
    size_t hidden;
    Completion done;
  };
  struct Attempt;

  void DialLocked();
  void OnEvent(bool ok) override;  // it is time to dial again
  void Dialled(Attempt& attempt, bool ok);
  void Connected(Attempt& attempt, bool ok);
  void Received(Attempt& attempt, bool ok);
  void ReadOn(Attempt& attempt, bool ok);
  void Written(Attempt& attempt, bool ok);
  void Finished(Attempt& attempt, bool ok);
  void Ended();
  void FinishLocked(Attempt& attempt);
  std::vector<Completion> TakeCallsLocked();

  const Peer peer_;
  const uint64_t incarnation_;
  const std::shared_ptr<BufferPool> buffers_;
  CompletionPoller& poller_;
  const UpListener listener_;
  grpc::GenericStub stub_;
  std::mutex mutex_;
  std::unique_ptr<Attempt> attempt_;            // guarded by mutex_; null between two
  grpc::Alarm redial_;                          // guarded by mutex_
  std::shared_ptr<DispatchStream> redialling_;  // guarded by mutex_; this, while redial_ is set
  bool up_ = false;                             // guarded by mutex_
  bool stopped_ = false;                        // guarded by mutex_
  std::unordered_map<uint64_t, Call> calls_;    // guarded by mutex_
  std::deque<grpc::ByteBuffer> writes_;         // guarded by mutex_; front() is being written
};

}  // namespace expertmesh::transport::internal

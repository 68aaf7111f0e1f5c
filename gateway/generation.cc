#include "gateway/generation.h"

#include <grpcpp/channel.h>

#include <mutex>
#include <utility>

#include "absl/strings/str_cat.h"
#include "services/base/status.h"
#include "services/rpc/status.h"

namespace expertmesh::gateway {

using inference::v1::GenerateRequest;
using inference::v1::GenerateResponse;

// Shared by the Generation and gRPC's reactor; lives until both are done with it.
class Generation::Call : public std::enable_shared_from_this<Call> {
 public:
  Call(const std::shared_ptr<grpc::Channel>& channel, std::shared_ptr<WorkerCalls> calls,
       GenerateRequest request, Wake wake)
      : stub_(inference::v1::InferenceService::NewStub(channel)),
        calls_(std::move(calls)),
        request_(std::move(request)),
        wake_(std::move(wake)) {}

  void Start(const rpc::Identity& identity, std::chrono::microseconds budget) {
    const absl::Status lost = calls_->Add(this, [weak = weak_from_this()](const absl::Status& why) {
      if (const auto call = weak.lock()) call->Lose(why);
    });
    if (!lost.ok()) {  // between the choice of the worker and now
      std::lock_guard lock(mutex_);
      ended_ = true;
      status_ = Named(lost);
      return;
    }
    auto* reactor = new Reactor(shared_from_this());
    rpc::PrepareClient(reactor->context, identity, budget);
    {
      std::lock_guard lock(mutex_);
      reactor_ = reactor;
      if (!lost_.ok()) reactor->context.TryCancel();
    }
    stub_->async()->Generate(&reactor->context, &request_, reactor);
    reactor->AddHold();  // reading may resume outside of reactions; released when reading ends
    reactor->StartRead(&reactor->event);
    reactor->StartCall();
  }

  Batch Take() {
    std::lock_guard lock(mutex_);
    Batch batch;
    batch.events.swap(queue_);
    queue_bytes_ = 0;
    batch.ended = ended_;
    batch.status = status_;
    ResumeLocked();
    return batch;
  }

  void Cancel() {
    std::lock_guard lock(mutex_);
    if (cancelled_ || reactor_ == nullptr) return;
    cancelled_ = true;
    queue_.clear();
    queue_bytes_ = 0;
    reactor_->context.TryCancel();
    ResumeLocked();  // a read must be out for the end to be seen
  }

  // The worker is gone: what came stays, and `why` is the end.
  void Lose(const absl::Status& why) {
    std::lock_guard lock(mutex_);
    if (ended_ || cancelled_) return;
    lost_ = why;
    if (reactor_ == nullptr) return;  // not begun: Start sees it
    reactor_->context.TryCancel();
    ResumeLocked();  // a read must be out for the end to be seen
  }

 private:
  // What gRPC calls; deletes itself in OnDone.
  struct Reactor final : grpc::ClientReadReactor<GenerateResponse> {
    explicit Reactor(std::shared_ptr<Call> c) : call(std::move(c)) {}
    void OnReadDone(bool ok) override { call->Received(*this, ok); }
    void OnDone(const grpc::Status& status) override {
      const std::shared_ptr<Call> keep = std::move(call);
      keep->Ended(status);
      delete this;
    }
    std::shared_ptr<Call> call;
    grpc::ClientContext context;
    GenerateResponse event;
  };

  bool FullLocked() const {
    return queue_.size() >= kQueueEventsMax || queue_bytes_ >= kQueueBytesMax;
  }

  void ResumeLocked() {
    if (!paused_) return;
    paused_ = false;
    reactor_->StartRead(&reactor_->event);
  }

  void Received(Reactor& reactor, bool ok) {
    if (!ok) {
      reactor.RemoveHold();
      return;
    }
    {
      std::lock_guard lock(mutex_);
      // Nothing is added to a full queue whose reading went on only to see the end.
      if (!cancelled_ && (lost_.ok() || !FullLocked())) {
        finished_ = finished_ || reactor.event.has_finished();
        queue_bytes_ += reactor.event.ByteSizeLong();
        queue_.push_back(std::move(reactor.event));
      }
      paused_ = FullLocked() && lost_.ok();
      if (!paused_) reactor.StartRead(&reactor.event);
    }
    wake_();
  }

  absl::Status Named(const absl::Status& status) const {
    if (base::ReasonOf(status) != base::Reason::kPeerLost) return status;
    return base::Annotate(status, absl::StrCat("attention worker ", calls_->worker(), ": "));
  }

  void Ended(const grpc::Status& status) {
    calls_->Remove(this);
    {
      std::lock_guard lock(mutex_);
      reactor_ = nullptr;
      ended_ = true;
      status_ = rpc::FromGrpcStatus(status);
      if (!status_.ok() && !lost_.ok()) status_ = lost_;
      status_ = Named(status_);
      if (status_.ok() && !finished_) {
        status_ = base::Error(base::Reason::kInternal,
                              "the attention worker ended its stream without an end of the answer");
      }
    }
    wake_();
  }

  const std::unique_ptr<inference::v1::InferenceService::Stub> stub_;
  const std::shared_ptr<WorkerCalls> calls_;
  const GenerateRequest request_;
  const Wake wake_;
  std::mutex mutex_;
  Reactor* reactor_ = nullptr;           // guarded by mutex_; null once the call is over
  std::vector<GenerateResponse> queue_;  // guarded by mutex_
  size_t queue_bytes_ = 0;               // guarded by mutex_
  bool paused_ = false;                  // guarded by mutex_: no read is out
  bool cancelled_ = false;               // guarded by mutex_
  bool finished_ = false;                // guarded by mutex_: a Finished event came
  bool ended_ = false;                   // guarded by mutex_
  absl::Status lost_;                    // guarded by mutex_; not OK: the worker is gone
  absl::Status status_;                  // guarded by mutex_
};

Generation::Generation(const std::shared_ptr<grpc::Channel>& channel,
                       std::shared_ptr<WorkerCalls> calls, GenerateRequest request,
                       const rpc::Identity& identity, std::chrono::microseconds budget, Wake wake)
    : call_(
          std::make_shared<Call>(channel, std::move(calls), std::move(request), std::move(wake))) {
  call_->Start(identity, budget);
}

Generation::~Generation() { call_->Cancel(); }
Generation::Batch Generation::Take() { return call_->Take(); }
void Generation::Cancel() { call_->Cancel(); }

}  // namespace expertmesh::gateway

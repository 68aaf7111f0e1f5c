#include "gateway/generation.h"

#include <utility>

#include "services/rpc/status.h"

namespace expertmesh::gateway {

namespace {
constexpr size_t kQueueMax = 256;  // events; then reading stops until they are taken
}

class Generation::Call : public std::enable_shared_from_this<Call> {
 public:
  // gRPC's half; deletes itself in OnDone.
  struct Reactor final : grpc::ClientReadReactor<inference::v1::GenerateResponse> {
    explicit Reactor(std::shared_ptr<Call> c) : call(std::move(c)) {}
    void OnReadDone(bool ok) override { call->Received(*this, ok); }
    void OnDone(const grpc::Status& status) override {
      const auto keep = std::move(call);
      keep->Ended(status);
      delete this;
    }
    std::shared_ptr<Call> call;
    grpc::ClientContext context;
    inference::v1::GenerateResponse event;
  };

  Call(std::shared_ptr<grpc::Channel> channel, inference::v1::GenerateRequest request, Wake wake)
      : stub_(inference::v1::InferenceService::NewStub(channel)),
        request_(std::move(request)),
        wake_(std::move(wake)) {}

  void Start(const rpc::Identity& identity, std::chrono::microseconds budget) {
    auto* reactor = new Reactor(shared_from_this());
    rpc::PrepareClient(reactor->context, identity, budget);
    {
      std::lock_guard lock(mutex_);
      reactor_ = reactor;
    }
    stub_->async()->Generate(&reactor->context, &request_, reactor);
    reactor->AddHold();  // reading may resume outside of reactions
    reactor->StartRead(&reactor->event);
    reactor->StartCall();
  }

  Batch Take() {
    std::lock_guard lock(mutex_);
    Batch batch;
    batch.events.assign(std::make_move_iterator(queue_.begin()), std::make_move_iterator(queue_.end()));
    queue_.clear();
    batch.ended = ended_;
    batch.status = status_;
    if (paused_) {
      paused_ = false;
      reactor_->StartRead(&reactor_->event);
    }
    return batch;
  }

  void Cancel() {
    std::lock_guard lock(mutex_);
    if (reactor_ == nullptr) return;
    reactor_->context.TryCancel();
    if (paused_) {  // a read must be out for the end to be seen
      paused_ = false;
      reactor_->StartRead(&reactor_->event);
    }
  }

 private:
  void Received(Reactor& reactor, bool ok) {
    if (!ok) {
      reactor.RemoveHold();
      return;
    }
    {
      std::lock_guard lock(mutex_);
      queue_.push_back(std::move(reactor.event));
      paused_ = queue_.size() >= kQueueMax;
      if (!paused_) reactor.StartRead(&reactor.event);
    }
    wake_();
  }

  void Ended(const grpc::Status& status) {
    {
      std::lock_guard lock(mutex_);
      reactor_ = nullptr;
      ended_ = true;
      status_ = rpc::FromGrpcStatus(status);
    }
    wake_();
  }

  const std::unique_ptr<inference::v1::InferenceService::Stub> stub_;
  const inference::v1::GenerateRequest request_;
  const Wake wake_;
  std::mutex mutex_;
  Reactor* reactor_ = nullptr;                             // guarded by mutex_
  std::deque<inference::v1::GenerateResponse> queue_;      // guarded by mutex_
  bool paused_ = false;                                    // guarded by mutex_
  bool ended_ = false;                                     // guarded by mutex_
  absl::Status status_;                                    // guarded by mutex_
};

Generation::Generation(std::shared_ptr<grpc::Channel> channel,
                       inference::v1::GenerateRequest request, const rpc::Identity& identity,
                       std::chrono::microseconds budget, Wake wake)
    : call_(std::make_shared<Call>(std::move(channel), std::move(request), std::move(wake))) {
  call_->Start(identity, budget);
}

Generation::~Generation() { call_->Cancel(); }
Generation::Batch Generation::Take() { return call_->Take(); }
void Generation::Cancel() { call_->Cancel(); }

}  // namespace expertmesh::gateway

#include "services/transport/dispatch_server.h"

#include <array>
#include <deque>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "services/base/status.h"
#include "services/rpc/status.h"
#include "services/transport/byte_buffer.h"

namespace expertmesh::transport {
namespace {

using base::Error;
using base::Reason;
using internal::FromByteBuffer;
using internal::ToByteBuffer;

// Answers queue here, since a second StartWrite before OnWriteDone aborts the process. Shared by
// the reactor and the replies that are still out.
class AnswerQueue {
 public:
  using StreamReactor = grpc::ServerBidiReactor<grpc::ByteBuffer, grpc::ByteBuffer>;
  explicit AnswerQueue(StreamReactor* reactor) : reactor_(reactor) {}

  void Push(grpc::ByteBuffer message) {
    std::lock_guard lock(mutex_);
    if (reactor_ == nullptr || finishing_) return;
    queue_.push_back(std::move(message));
    if (queue_.size() == 1) reactor_->StartWrite(&queue_.front());
  }
  void Written(bool ok) {
    std::lock_guard lock(mutex_);
    queue_.pop_front();
    if (finishing_) return;
    if (!ok) queue_.clear();  // the stream is broken; OnCancel or OnDone ends it
    if (!queue_.empty()) reactor_->StartWrite(&queue_.front());
    FinishIfAnswered();
  }
  // The peer sends no more calls: the stream ends when those that it sent are answered.
  void NoMoreCalls() {
    std::lock_guard lock(mutex_);
    calls_ended_ = true;
    FinishIfAnswered();
  }
  // A call was taken over, and is done with: answered, or its reply was thrown away.
  void Owe() {
    std::lock_guard lock(mutex_);
    ++owed_;
  }
  void Settle() {
    std::lock_guard lock(mutex_);
    --owed_;
    FinishIfAnswered();
  }
  // After this nothing is written; Finish is called once.
  void Finish(const grpc::Status& status) {
    std::lock_guard lock(mutex_);
    FinishLocked(status);
  }
  void Detach() {
    std::lock_guard lock(mutex_);
    reactor_ = nullptr;
  }

 private:
  void FinishIfAnswered() {
    if (calls_ended_ && owed_ == 0 && queue_.empty()) FinishLocked(grpc::Status::OK);
  }
  void FinishLocked(const grpc::Status& status) {
    if (finishing_ || reactor_ == nullptr) return;
    finishing_ = true;
    reactor_->Finish(status);
  }

  std::mutex mutex_;
  StreamReactor* reactor_;              // guarded by mutex_; null once the stream is gone
  bool finishing_ = false;              // guarded by mutex_
  bool calls_ended_ = false;            // guarded by mutex_
  size_t owed_ = 0;                     // guarded by mutex_; calls that are not done with
  std::deque<grpc::ByteBuffer> queue_;  // guarded by mutex_; front() is being written
};

// Lives as long as anyone can still answer the call.
struct OpenCall {
  explicit OpenCall(std::shared_ptr<AnswerQueue> queue) : answers(std::move(queue)) {
    answers->Owe();
  }
  ~OpenCall() { answers->Settle(); }
  OpenCall(const OpenCall&) = delete;
  OpenCall& operator=(const OpenCall&) = delete;

  const std::shared_ptr<AnswerQueue> answers;
};

class DispatchReactor final : public grpc::ServerBidiReactor<grpc::ByteBuffer, grpc::ByteBuffer> {
 public:
  DispatchReactor(grpc::CallbackServerContext* context, uint64_t incarnation,
                  const FrameHandler& handler, std::shared_ptr<BufferPool> buffers)
      : handler_(handler),
        buffers_(std::move(buffers)),
        answers_(std::make_shared<AnswerQueue>(this)) {
    context->AddInitialMetadata(internal::kIncarnationKey, std::to_string(incarnation));
    const auto& metadata = context->client_metadata();
    const auto expected = metadata.find(internal::kExpectedKey);
    if (expected != metadata.end() &&
        std::string(expected->second.data(), expected->second.size()) !=
            std::to_string(incarnation)) {
      answers_->Finish(rpc::ToGrpcStatus(
          Error(Reason::kPeerLost, "another incarnation of this worker was expected")));
      return;
    }
    StartSendInitialMetadata();
    StartRead(&message_);
  }

  void OnReadDone(bool ok) override {
    if (!ok) {
      answers_->NoMoreCalls();
      return;
    }
    auto frame = FromByteBuffer(message_, ParseDispatchFrame, *buffers_);
    message_.Clear();
    auto call = std::make_shared<OpenCall>(answers_);
    // The handler may compute right here; meanwhile the next frame comes in on another thread.
    StartRead(&message_);
    handler_(std::move(frame), [call = std::move(call)](CombineFrame answer) {
      call->answers->Push(ToByteBuffer(std::move(answer)));
    });
  }
  void OnWriteDone(bool ok) override { answers_->Written(ok); }
  void OnCancel() override { answers_->Finish(grpc::Status::CANCELLED); }
  void OnDone() override {
    answers_->Detach();
    delete this;
  }

 private:
  const FrameHandler& handler_;
  const std::shared_ptr<BufferPool> buffers_;
  const std::shared_ptr<AnswerQueue> answers_;
  grpc::ByteBuffer message_;
};

}  // namespace

DispatchServer::DispatchServer(uint64_t incarnation, FrameHandler handler, DescribeFn describe,
                               ShmServer* rings)
    : incarnation_(incarnation),
      handler_(std::move(handler)),
      describe_(std::move(describe)),
      rings_(rings),
      buffers_(std::make_shared<BufferPool>()) {}

grpc::ServerBidiReactor<grpc::ByteBuffer, grpc::ByteBuffer>* DispatchServer::Dispatch(
    grpc::CallbackServerContext* context) {
  return new DispatchReactor(context, incarnation_, handler_, buffers_);
}

grpc::ServerUnaryReactor* DispatchServer::Describe(grpc::CallbackServerContext* context,
                                                   const expert::v1::DescribeRequest* request,
                                                   expert::v1::DescribeResponse* response) {
  *response = describe_(*request);
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  reactor->Finish(grpc::Status::OK);
  return reactor;
}

grpc::ServerUnaryReactor* DispatchServer::AgreeRing(grpc::CallbackServerContext* context,
                                                    const expert::v1::AgreeRingRequest* request,
                                                    expert::v1::AgreeRingResponse* response) {
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  absl::StatusOr<expert::v1::AgreeRingResponse> agreed =
      Error(Reason::kUnsupported, "this worker serves no rings");
  if (request->expected_incarnation() != incarnation_) {
    agreed = Error(Reason::kPeerLost, "another incarnation of this worker was expected");
  } else if (rings_ != nullptr) {
    agreed = rings_->Agree(*request);
  }
  if (agreed.ok()) *response = *std::move(agreed);
  reactor->Finish(rpc::ToGrpcStatus(agreed.status()));
  return reactor;
}

}  // namespace expertmesh::transport

#include "services/transport/frame_door.h"

#include <deque>
#include <mutex>
#include <utility>

#include "services/base/status.h"
#include "services/rpc/identity.h"
#include "services/rpc/server.h"
#include "services/rpc/status.h"
#include "services/transport/byte_buffer.h"

namespace expertmesh::transport {

using base::Error;
using base::Reason;
using internal::CompletionTag;
using internal::FromByteBuffer;
using internal::ToByteBuffer;

// Of the door and its streams, which replies may keep beyond it: nothing may begin on a queue that
// is shut down.
struct FrameDoor::Gate {
  std::mutex mutex;
  bool closed = false;
};

// One call of gRPC, from the wait for it to its end. Shared by its operations and the replies that
// are still out.
class FrameDoor::Stream final : public std::enable_shared_from_this<FrameDoor::Stream> {
 public:
  explicit Stream(FrameDoor& door) : door_(door), gate_(door.gate_) {}

  void Await() {
    std::lock_guard lock(gate_->mutex);
    if (gate_->closed) return;
    self_ = shared_from_this();
    context_.AsyncNotifyWhenDone(Begin(gone_));
    door_.service_.RequestCall(&context_, &call_, door_.queue_.get(), door_.queue_.get(),
                               Begin(accepted_));
  }

  // The frames that came are served: asks for the next one.
  void ReadOn() {
    std::lock_guard lock(gate_->mutex);
    if (!IsOver()) call_.Read(&message_, Begin(received_));
    if (--pending_ == 0) self_.reset();
  }

 private:
  using Handler = void (Stream::*)(bool);
  class Tag final : public CompletionTag {
   public:
    Tag(Stream& stream, Handler handler) : stream_(stream), handler_(handler) {}
    void OnEvent(bool ok) override { stream_.OnEvent(handler_, ok); }

   private:
    Stream& stream_;
    const Handler handler_;
  };
  // Lives as long as anyone can still answer the call.
  struct OpenCall {
    explicit OpenCall(std::shared_ptr<Stream> s) : stream(std::move(s)) {}
    ~OpenCall() { stream->Settle(); }
    OpenCall(const OpenCall&) = delete;
    OpenCall& operator=(const OpenCall&) = delete;
    const std::shared_ptr<Stream> stream;
  };

  // Under the lock: the operation that ends with `tag` begins.
  void* Begin(CompletionTag& tag) {
    ++pending_;
    return &tag;
  }
  void OnEvent(Handler handler, bool ok) {
    const std::shared_ptr<Stream> keep = shared_from_this();
    (this->*handler)(ok);
    std::lock_guard lock(gate_->mutex);
    if (--pending_ == 0) self_.reset();
  }

  void Accepted(bool ok) {
    if (!ok) {  // the door closes: nobody was accepted, and nobody can go
      std::lock_guard lock(gate_->mutex);
      --pending_;
      return;
    }
    door_.Accept();
    const absl::Status status = Check();
    std::lock_guard lock(gate_->mutex);
    if (!status.ok()) return FinishLocked(rpc::ToGrpcStatus(status));
    if (IsOver()) return;
    context_.AddInitialMetadata(internal::kIncarnationKey,
                                std::to_string(door_.options_.incarnation));
    call_.SendInitialMetadata(Begin(greeted_));
    call_.Read(&message_, Begin(received_));
  }

  absl::Status Check() const {
    if (context_.method() != kDispatchMethod) {
      return Error(Reason::kUnsupported, context_.method() + " is not served at this address");
    }
    EM_RETURN_IF_ERROR(rpc::IdentityOf(context_).status());
    const auto& metadata = context_.client_metadata();
    const auto expected = metadata.find(internal::kExpectedKey);
    if (expected != metadata.end() &&
        std::string(expected->second.data(), expected->second.size()) !=
            std::to_string(door_.options_.incarnation)) {
      return Error(Reason::kPeerLost, "another incarnation of this worker was expected");
    }
    return absl::OkStatus();
  }

  void Greeted(bool /*ok*/) {}

  void Received(bool ok) {
    if (!ok) {
      std::lock_guard lock(gate_->mutex);
      calls_ended_ = true;
      return FinishIfAnswered();
    }
    auto frame = FromByteBuffer(message_, ParseDispatchFrame, *door_.buffers_);
    message_.Clear();
    {
      std::lock_guard lock(gate_->mutex);
      ++owed_;
      ++pending_;
    }
    door_.served_.push_back(shared_from_this());
    auto open = std::make_shared<OpenCall>(shared_from_this());
    door_.options_.handler(std::move(frame), [open = std::move(open)](CombineFrame answer) {
      open->stream->Push(ToByteBuffer(std::move(answer)));
    });
  }

  void Push(grpc::ByteBuffer message) {
    std::lock_guard lock(gate_->mutex);
    if (IsOver()) return;
    writes_.push_back(std::move(message));
    if (writes_.size() == 1) call_.Write(writes_.front(), Begin(written_));
  }
  void Written(bool ok) {
    std::lock_guard lock(gate_->mutex);
    writes_.pop_front();
    if (!ok || IsOver()) writes_.clear();
    if (!writes_.empty()) call_.Write(writes_.front(), Begin(written_));
    FinishIfAnswered();
  }
  // A call is done with: answered, or its reply was thrown away.
  void Settle() {
    std::lock_guard lock(gate_->mutex);
    --owed_;
    FinishIfAnswered();
  }

  // The stream is over: answered, refused, or its caller is lost.
  void Gone(bool /*ok*/) {
    std::lock_guard lock(gate_->mutex);
    is_gone_ = true;
  }
  // No operation may begin any more.
  bool IsOver() const { return finishing_ || is_gone_ || gate_->closed; }
  void FinishIfAnswered() {
    if (calls_ended_ && owed_ == 0 && writes_.empty()) FinishLocked(grpc::Status::OK);
  }
  void FinishLocked(const grpc::Status& status) {
    if (IsOver()) return;
    finishing_ = true;
    call_.Finish(status, Begin(finished_));
  }
  void Finished(bool /*ok*/) {}

  FrameDoor& door_;  // gone once the gate is closed
  const std::shared_ptr<Gate> gate_;
  grpc::GenericServerContext context_;
  grpc::GenericServerAsyncReaderWriter call_{&context_};
  grpc::ByteBuffer message_;
  Tag accepted_{*this, &Stream::Accepted};
  Tag greeted_{*this, &Stream::Greeted};
  Tag received_{*this, &Stream::Received};
  Tag written_{*this, &Stream::Written};
  Tag finished_{*this, &Stream::Finished};
  Tag gone_{*this, &Stream::Gone};
  std::shared_ptr<Stream> self_;         // guarded by the gate; while an operation is pending
  size_t pending_ = 0;                   // guarded by the gate
  bool finishing_ = false;               // guarded by the gate
  bool is_gone_ = false;                 // guarded by the gate
  bool calls_ended_ = false;             // guarded by the gate
  size_t owed_ = 0;                      // guarded by the gate; calls that are not done with
  std::deque<grpc::ByteBuffer> writes_;  // guarded by the gate; front() is being written
};

FrameDoor::FrameDoor(Options options)
    : options_(std::move(options)),
      buffers_(std::make_shared<BufferPool>()),
      gate_(std::make_shared<Gate>()) {}

absl::StatusOr<std::unique_ptr<FrameDoor>> FrameDoor::Start(Options options) {
  const std::string listen = options.listen;
  std::unique_ptr<FrameDoor> door(new FrameDoor(std::move(options)));
  EM_ASSIGN_OR_RETURN(rpc::BareServer server, rpc::StartBareServer(listen, door->service_));
  door->address_ = std::move(server.address);
  door->queue_ = std::move(server.queue);
  door->server_ = std::move(server.server);
  door->Accept();
  door->thread_ = std::thread([raw = door.get()] { raw->Run(); });
  return door;
}

FrameDoor::~FrameDoor() { Stop(std::chrono::milliseconds(0)); }

void FrameDoor::Stop(std::chrono::milliseconds grace) {
  if (!thread_.joinable()) return;
  server_->Shutdown(std::chrono::system_clock::now() + grace);
  {
    std::lock_guard lock(gate_->mutex);
    gate_->closed = true;
  }
  queue_->Shutdown();
  thread_.join();
}

void FrameDoor::Accept() { std::make_shared<Stream>(*this)->Await(); }

void FrameDoor::Run() {
  using NextStatus = grpc::CompletionQueue::NextStatus;
  const std::chrono::system_clock::time_point past;
  const auto never = std::chrono::system_clock::time_point::max();
  void* tag = nullptr;
  bool ok = false;
  for (;;) {
    NextStatus next = queue_->AsyncNext(&tag, &ok, never);
    while (next == NextStatus::GOT_EVENT) {
      static_cast<CompletionTag*>(tag)->OnEvent(ok);
      next = queue_->AsyncNext(&tag, &ok, past);
    }
    if (next != NextStatus::SHUTDOWN) options_.drained();
    ReadOn();
    if (next == NextStatus::SHUTDOWN) return;
  }
}

// Only now: with a reader waiting, gRPC tells the other end at once that there is room for more,
// and an answer would leave behind that message.
void FrameDoor::ReadOn() {
  for (const auto& stream : std::exchange(served_, {})) stream->ReadOn();
}

}  // namespace expertmesh::transport

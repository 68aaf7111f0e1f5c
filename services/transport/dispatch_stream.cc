#include "services/transport/dispatch_stream.h"

#include <chrono>
#include <utility>

#include "services/base/status.h"
#include "services/rpc/channel.h"
#include "services/rpc/status.h"
#include "services/transport/byte_buffer.h"
#include "services/transport/frame_door.h"

namespace expertmesh::transport::internal {
namespace {

using base::Error;
using base::Reason;

constexpr auto kRedialAfter = std::chrono::milliseconds(100);

void FailAll(std::vector<Completion> calls, const absl::Status& status) {
  for (Completion& done : calls) done(status);
}

}  // namespace

// One call of gRPC, from dial to its end: it is over when all of its operations have ended.
struct DispatchStream::Attempt {
  using Handler = void (DispatchStream::*)(Attempt&, bool);
  class Tag final : public CompletionTag {
   public:
    Tag(Attempt& attempt, Handler handler) : attempt_(attempt), handler_(handler) {}
    void OnEvent(bool ok) override { attempt_.OnEvent(handler_, ok); }

   private:
    Attempt& attempt_;
    const Handler handler_;
  };

  explicit Attempt(std::shared_ptr<DispatchStream> s) : stream(std::move(s)) {}

  // Under the stream's lock: the operation that ends with `tag` begins.
  void* Begin(CompletionTag& tag) {
    ++pending;
    return &tag;
  }
  void OnEvent(Handler handler, bool ok) {
    const std::shared_ptr<DispatchStream> keep = stream;
    (keep.get()->*handler)(*this, ok);
    bool over = false;
    {
      std::lock_guard lock(keep->mutex_);
      over = --pending == 0;
    }
    if (over) keep->Ended();  // destroys this
  }

  const std::shared_ptr<DispatchStream> stream;
  grpc::ClientContext context;
  std::unique_ptr<grpc::GenericClientAsyncReaderWriter> call;
  grpc::ByteBuffer answer;
  grpc::Status status;
  size_t pending = 0;      // guarded by the stream's lock
  bool finishing = false;  // guarded by the stream's lock; its last operation has begun
  Tag dialled{*this, &DispatchStream::Dialled};
  Tag connected{*this, &DispatchStream::Connected};
  Tag received{*this, &DispatchStream::Received};
  Tag written{*this, &DispatchStream::Written};
  Tag finished{*this, &DispatchStream::Finished};
};

DispatchStream::DispatchStream(Peer peer, uint64_t incarnation, std::shared_ptr<BufferPool> buffers,
                               CompletionPoller& poller, UpListener listener)
    : peer_(std::move(peer)),
      incarnation_(incarnation),
      buffers_(std::move(buffers)),
      poller_(poller),
      listener_(std::move(listener)),
      stub_(rpc::MakeChannel(peer_.frames)) {}

DispatchStream::~DispatchStream() = default;

void DispatchStream::Start() {
  std::lock_guard lock(mutex_);
  DialLocked();
}

void DispatchStream::Stop(const std::string& why) {
  std::vector<Completion> failed;
  {
    std::lock_guard lock(mutex_);
    stopped_ = true;
    up_ = false;
    if (attempt_) attempt_->context.TryCancel();
    if (redialling_) redial_.Cancel();
    failed = TakeCallsLocked();
  }
  FailAll(std::move(failed), Error(Reason::kPeerLost, why));
  for (;;) {
    {
      std::lock_guard lock(mutex_);
      if (!attempt_ && !redialling_) return;
    }
    poller_.Help();
  }
}

void DispatchStream::Submit(DispatchFrame frame, Completion done) {
  const uint64_t call_id = frame.header.call_id();
  Call call{frame.header.partial_count(), frame.header.hidden_size(), std::move(done)};
  grpc::ByteBuffer message = ToByteBuffer(std::move(frame));
  {
    std::lock_guard lock(mutex_);
    if (up_) {
      calls_.emplace(call_id, std::move(call));
      writes_.push_back(std::move(message));
      if (writes_.size() == 1) {
        attempt_->call->Write(writes_.front(), attempt_->Begin(attempt_->written));
      }
      return;
    }
  }
  call.done(Error(Reason::kPeerLost, "no connection to " + peer_.name));
}

bool DispatchStream::Cancel(uint64_t call_id) {
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

void DispatchStream::DialLocked() {
  if (stopped_ || attempt_) return;
  attempt_ = std::make_unique<Attempt>(shared_from_this());
  Attempt& attempt = *attempt_;
  attempt.context.set_wait_for_ready(true);
  attempt.context.AddMetadata(kIncarnationKey, std::to_string(incarnation_));
  attempt.context.AddMetadata(kExpectedKey, std::to_string(peer_.incarnation));
  attempt.call = stub_.PrepareCall(&attempt.context, kDispatchMethod, &poller_.queue());
  attempt.call->StartCall(attempt.Begin(attempt.dialled));
}

void DispatchStream::Dialled(Attempt& attempt, bool ok) {
  std::lock_guard lock(mutex_);
  if (!ok || stopped_) return FinishLocked(attempt);
  attempt.call->ReadInitialMetadata(attempt.Begin(attempt.connected));
}

void DispatchStream::Connected(Attempt& attempt, bool ok) {
  {
    std::lock_guard lock(mutex_);
    if (!ok || stopped_) return FinishLocked(attempt);
    const auto& metadata = attempt.context.GetServerInitialMetadata();
    const auto theirs = metadata.find(kIncarnationKey);
    if (theirs == metadata.end() || std::string(theirs->second.data(), theirs->second.size()) !=
                                        std::to_string(peer_.incarnation)) {
      return FinishLocked(attempt);
    }
    up_ = true;
  }
  listener_(true, "grpc");  // before anything can be lost
  std::lock_guard lock(mutex_);
  if (stopped_) return FinishLocked(attempt);
  attempt.call->Read(&attempt.answer, attempt.Begin(attempt.received));
}

void DispatchStream::Received(Attempt& attempt, bool ok) {
  if (!ok) {
    std::lock_guard lock(mutex_);
    return FinishLocked(attempt);
  }
  auto frame = FromByteBuffer(attempt.answer, ParseCombineFrame, *buffers_);
  attempt.answer.Clear();
  Call call{};
  {
    std::lock_guard lock(mutex_);
    // Without a call id nobody can be told: the stream is broken.
    if (!frame.ok() || stopped_) return FinishLocked(attempt);
    // Not at once: with a reader waiting, gRPC tells the other end right now that there is room for
    // more, and what this thread does next is what everybody waits for.
    ++attempt.pending;
    poller_.Later([&attempt] { attempt.OnEvent(&DispatchStream::ReadOn, true); });
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

void DispatchStream::ReadOn(Attempt& attempt, bool /*ok*/) {
  std::lock_guard lock(mutex_);
  if (stopped_) return FinishLocked(attempt);
  if (!attempt.finishing) {
    attempt.call->Read(&attempt.answer, attempt.Begin(attempt.received));
  }
}

void DispatchStream::Written(Attempt& attempt, bool ok) {
  std::lock_guard lock(mutex_);
  writes_.pop_front();
  if (!ok || !up_) {
    writes_.clear();
  } else if (!writes_.empty()) {
    attempt.call->Write(writes_.front(), attempt.Begin(attempt.written));
  }
}

void DispatchStream::Finished(Attempt& /*attempt*/, bool /*ok*/) {}

// Nothing more is begun, and what is pending ends.
void DispatchStream::FinishLocked(Attempt& attempt) {
  up_ = false;
  if (attempt.finishing) return;
  attempt.finishing = true;
  attempt.context.TryCancel();
  attempt.call->Finish(&attempt.status, attempt.Begin(attempt.finished));
}

void DispatchStream::Ended() {
  std::vector<Completion> failed;
  std::string why;
  {
    std::lock_guard lock(mutex_);
    const grpc::Status& status = attempt_->status;
    why = "connection to " + peer_.name +
          " ended: " + (status.ok() ? "closed by the peer" : status.error_message());
    up_ = false;
    writes_.clear();
    failed = TakeCallsLocked();
  }
  FailAll(std::move(failed), Error(Reason::kPeerLost, why));
  listener_(false, why);
  const std::shared_ptr<DispatchStream> keep = shared_from_this();
  std::lock_guard lock(mutex_);
  attempt_.reset();
  if (stopped_) return;
  redialling_ = keep;
  redial_.Set(&poller_.queue(), std::chrono::system_clock::now() + kRedialAfter,
              static_cast<CompletionTag*>(this));
}

void DispatchStream::OnEvent(bool /*ok*/) {
  std::shared_ptr<DispatchStream> keep;
  std::lock_guard lock(mutex_);
  keep = std::move(redialling_);
  DialLocked();
}

std::vector<Completion> DispatchStream::TakeCallsLocked() {
  std::vector<Completion> taken;
  for (auto& [id, call] : calls_) taken.push_back(std::move(call.done));
  calls_.clear();
  return taken;
}

}  // namespace expertmesh::transport::internal

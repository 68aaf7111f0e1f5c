#include "services/transport/shm_link.h"

#include <sys/socket.h>

#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "services/base/status.h"
#include "services/transport/shm_socket.h"

namespace expertmesh::transport {
namespace {

using base::Error;
using base::Reason;

constexpr size_t kAnswerHeaderBytesMax = 8192;
constexpr std::array<Purpose, 2> kPurposes = {Purpose::kDecode, Purpose::kPrefill};

}  // namespace

ShmLink::ShmLink(std::string peer, std::unique_ptr<ShmSegment> segment, UniqueFd socket,
                 std::shared_ptr<BufferPool> buffers)
    : peer_(std::move(peer)),
      segment_(std::move(segment)),
      socket_(std::move(socket)),
      buffers_(std::move(buffers)),
      lanes_{Lane(segment_->requests(Purpose::kDecode), segment_->answers(Purpose::kDecode)),
             Lane(segment_->requests(Purpose::kPrefill), segment_->answers(Purpose::kPrefill))} {
  for (const Purpose purpose : kPurposes) {
    lanes_[static_cast<size_t>(purpose)].answer_bytes = segment_->answers(purpose).capacity;
  }
}

ShmLink::~ShmLink() { Break("the ring was given up"); }

bool ShmLink::TrySubmit(Purpose purpose, DispatchFrame& frame, Completion& done) {
  const DispatchHeader& header = frame.header;
  const std::string prefix = MessagePrefix(header.SerializeAsString(), frame.payload.size());
  Call call{header.partial_count(), header.hidden_size(), 0, purpose, nullptr};
  call.reserved =
      RingRecordBytes(call.partials * call.hidden * sizeof(float) + kAnswerHeaderBytesMax);
  {
    std::lock_guard lock(mutex_);
    Lane& lane = lanes_[static_cast<size_t>(purpose)];
    if (broken_ || call.reserved > lane.answer_bytes - lane.reserved ||
        calls_.contains(header.call_id())) {
      return false;
    }
    const auto written =
        lane.writer.TryWrite(std::as_bytes(std::span(prefix)), frame.payload.span());
    if (!written.ok() || !*written) {
      // A broken ring is noticed, and its calls are ended, by the receiver.
      if (!written.ok()) shutdown(socket_.get(), SHUT_RDWR);
      return false;
    }
    lane.reserved += call.reserved;
    call.done = std::move(done);
    calls_.emplace(header.call_id(), std::move(call));
  }
  // After the publication and before the look at the sleeper, as the sleeper does it crosswise.
  std::atomic_thread_fence(std::memory_order_seq_cst);
  std::atomic<uint32_t>& asleep = segment_->server_asleep();
  if (asleep.load(std::memory_order_relaxed) != 0 && asleep.exchange(0) != 0) RingDoor(socket_);
  frame = DispatchFrame();
  return true;
}

bool ShmLink::Cancel(uint64_t call_id) {
  Completion done;
  {
    std::lock_guard lock(mutex_);
    const auto it = calls_.find(call_id);
    if (it == calls_.end() || !it->second.done) return false;
    done = std::exchange(it->second.done, nullptr);
  }
  done(Error(Reason::kCancelled, "the call was cancelled"));
  return true;
}

void ShmLink::Break(const std::string& why) {
  std::vector<Completion> failed;
  {
    std::lock_guard lock(mutex_);
    if (broken_) return;
    why_ = absl::StrCat("ring to ", peer_, ": ", why);
    broken_.store(true, std::memory_order_release);
    for (auto& [id, call] : calls_) {
      if (call.done) failed.push_back(std::move(call.done));
    }
    calls_.clear();
    shutdown(socket_.get(), SHUT_RDWR);  // the other end gives its mapping up
  }
  for (Completion& done : failed) done(Error(Reason::kPeerLost, why_));
}

std::string ShmLink::why() const {
  std::lock_guard lock(mutex_);
  return why_;
}

bool ShmLink::Ready() const {
  if (broken_) return false;
  return lanes_[0].reader.Ready() || lanes_[1].reader.Ready();
}

bool ShmLink::Receive() {
  bool any = false;
  for (const Purpose purpose : kPurposes) {
    while (!broken_ && ReceiveOne(purpose)) any = true;
  }
  return any;
}

bool ShmLink::ReceiveOne(Purpose purpose) {
  RingReader& reader = lanes_[static_cast<size_t>(purpose)].reader;
  const auto message = reader.Next();
  if (!message.ok()) {
    Break(std::string(message.status().message()));
    return true;
  }
  if (!*message) return false;
  const std::array<std::span<const std::byte>, 1> slices = {**message};
  auto frame = ParseCombineFrame(slices, *buffers_);
  reader.Consume();
  if (frame.ok()) {
    Complete(purpose, *std::move(frame));
  } else {
    Break(std::string(frame.status().message()));  // without a call id nobody can be told
  }
  return true;
}

void ShmLink::Complete(Purpose purpose, CombineFrame frame) {
  Call call;
  {
    std::lock_guard lock(mutex_);
    const auto it = calls_.find(frame.header.call_id());
    if (it != calls_.end() && it->second.purpose == purpose) {
      call = std::move(it->second);
      calls_.erase(it);
      lanes_[static_cast<size_t>(purpose)].reserved -= call.reserved;
    } else if (broken_) {
      return;
    }
  }
  if (call.reserved == 0) {
    Break("an answer to no call");
    return;
  }
  if (!call.done) return;  // cancelled
  const absl::Status status = CheckCombine(frame, call.partials, call.hidden);
  if (status.ok()) {
    call.done(std::move(frame));
  } else {
    call.done(status);
  }
}

bool ShmLink::PrepareSleep() {
  segment_->client_asleep().store(1, std::memory_order_seq_cst);
  std::atomic_thread_fence(std::memory_order_seq_cst);
  return !Ready() && !broken_;
}

void ShmLink::Awake(bool signalled) {
  segment_->client_asleep().store(0, std::memory_order_relaxed);
  // What the peer wrote before it went is still taken in, by the caller's next Receive.
  if (signalled && !AnswerDoor(socket_)) {
    Receive();
    Break("the worker is gone");
  }
}

}  // namespace expertmesh::transport

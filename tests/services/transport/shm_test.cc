// Rings in shared memory (docs/protocol.md §6): what goes in comes out, and whatever a broken or
// hostile peer does to the memory, the socket or the hello ends the ring and nothing else.
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <cstring>
#include <deque>
#include <map>
#include <random>

#include "services/base/host_identity.h"
#include "services/base/status.h"
#include "services/transport/shm_link.h"
#include "services/transport/shm_server.h"
#include "services/transport/shm_socket.h"

namespace expertmesh::transport {
namespace {

using base::Reason;
constexpr auto kPatience = std::chrono::seconds(20);
constexpr size_t kHidden = 4;

SegmentSizes SmallSizes() {
  return {{kRingBytesMin, kRingBytesMin}, {kRingBytesMin, kRingBytesMin}};
}

std::vector<std::byte> Copy(std::span<const std::byte> bytes) {
  return {bytes.begin(), bytes.end()};
}

class RingTest : public testing::Test {
 protected:
  void SetUp() override {
    auto segment = ShmSegment::Create(SmallSizes());
    ASSERT_TRUE(segment.ok()) << segment.status();
    segment_ = *std::move(segment);
    ring_ = segment_->requests(Purpose::kDecode);
  }
  // Why the reader refuses what stands there.
  Reason Refused() {
    RingReader reader(ring_);
    return base::ReasonOf(reader.Next().status());
  }
  void Put(size_t at, uint64_t value) { std::memcpy(ring_.data + at, &value, sizeof(value)); }

  std::unique_ptr<ShmSegment> segment_;
  RingView ring_;
};

TEST_F(RingTest, EveryMessageComesOutOnceInOrderAcrossTheEnd) {
  RingWriter writer(ring_);
  RingReader reader(ring_);
  std::mt19937 rng(3);
  std::deque<std::vector<std::byte>> sent;
  size_t refused = 0;
  for (int i = 0; i < 4000; ++i) {
    std::vector<std::byte> head(rng() % 40);
    std::vector<std::byte> body(rng() % 9000);
    for (auto* part : {&head, &body}) {
      for (std::byte& b : *part) b = static_cast<std::byte>(rng());
    }
    const auto written = writer.TryWrite(head, body);
    ASSERT_TRUE(written.ok());
    if (*written) {
      head.insert(head.end(), body.begin(), body.end());
      sent.push_back(std::move(head));
    }
    refused += *written ? 0 : 1;
    for (size_t n = rng() % 3; n > 0 && !sent.empty(); --n) {
      const auto message = reader.Next();
      ASSERT_TRUE(message.ok() && message->has_value());
      ASSERT_EQ(Copy(**message), sent.front());
      reader.Consume();
      sent.pop_front();
    }
  }
  EXPECT_GT(refused, 0u);  // the ring was full at times
  for (; !sent.empty(); sent.pop_front()) {
    ASSERT_EQ(Copy(**reader.Next()), sent.front());
    reader.Consume();
  }
  EXPECT_FALSE(reader.Next()->has_value());
  EXPECT_FALSE(reader.Ready());
}

TEST_F(RingTest, AMessageOfTheWholeRingFitsAndALargerOneNever) {
  RingWriter writer(ring_);
  RingReader reader(ring_);
  const std::vector<std::byte> most(kRingBytesMin - 16, std::byte{7});
  ASSERT_TRUE(*writer.TryWrite({}, most));
  EXPECT_FALSE(*writer.TryWrite({}, {}));  // full to the last byte
  EXPECT_EQ(Copy(**reader.Next()), most);
  reader.Consume();
  const std::vector<std::byte> more(most.size() + 1);
  EXPECT_FALSE(*writer.TryWrite({}, more));
  EXPECT_TRUE(*writer.TryWrite({}, {}));
}

TEST_F(RingTest, WhatCannotBeIsAFault) {
  ring_.control->written = kRingBytesMin + 64;  // more than there is
  EXPECT_EQ(Refused(), Reason::kFrameMalformed);
  ring_.control->written = 65;
  EXPECT_EQ(Refused(), Reason::kFrameMalformed);
  ring_.control->written = ~uint64_t{0};
  EXPECT_EQ(Refused(), Reason::kFrameMalformed);
  ring_.control->written = 64;
  Put(0, 49);  // a byte longer than what was written
  EXPECT_EQ(Refused(), Reason::kFrameMalformed);
  Put(0, ~uint64_t{0});
  EXPECT_EQ(Refused(), Reason::kFrameMalformed);
  Put(0, 48);
  Put(8, 1);  // not the first record
  EXPECT_EQ(Refused(), Reason::kFrameMalformed);
  Put(8, 0);
  RingReader reader(ring_);
  EXPECT_EQ((**reader.Next()).size(), 48u);
}

TEST_F(RingTest, AWriterRefusesAnImpossibleReader) {
  RingWriter writer(ring_);
  ASSERT_TRUE(*writer.TryWrite({}, {}));
  for (const uint64_t read : {uint64_t{128}, uint64_t{1}, ~uint64_t{0}}) {
    ring_.control->read = read;
    EXPECT_EQ(base::ReasonOf(writer.TryWrite({}, {}).status()), Reason::kFrameMalformed);
  }
}

TEST(SegmentTest, OnlyASealedFileOfTheRightLengthIsMapped) {
  const SegmentSizes sizes = SmallSizes();
  const auto good = ShmSegment::Create(sizes);
  ASSERT_TRUE(good.ok());
  EXPECT_TRUE(ShmSegment::Map(UniqueFd(dup((*good)->fd())), sizes).ok());
  SegmentSizes other = sizes;
  other.answers[1] *= 2;
  EXPECT_EQ(base::ReasonOf(ShmSegment::Map(UniqueFd(dup((*good)->fd())), other).status()),
            Reason::kFrameMalformed);
  UniqueFd unsealed(memfd_create("test", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  ASSERT_EQ(ftruncate(unsealed.get(), 4096 + 4 * kRingBytesMin), 0);
  EXPECT_EQ(base::ReasonOf(ShmSegment::Map(std::move(unsealed), sizes).status()),
            Reason::kFrameMalformed);
  std::array<int, 2> pipe_ends{};
  ASSERT_EQ(pipe(pipe_ends.data()), 0);
  UniqueFd in(pipe_ends[0]);
  UniqueFd out(pipe_ends[1]);
  EXPECT_FALSE(ShmSegment::Map(std::move(in), sizes).ok());
  SegmentSizes odd = sizes;
  odd.requests[0] = kRingBytesMin + 64;
  EXPECT_FALSE(ShmSegment::Create(odd).ok());
  odd.requests[0] = 0x80000000u;
  EXPECT_FALSE(ShmSegment::Create(odd).ok());
}

/// The attention worker's end as ShmLink has it, the worker's end as raw memory and a socket.
class LinkTest : public testing::Test {
 protected:
  void SetUp() override {
    auto ours = ShmSegment::Create(SmallSizes());
    ASSERT_TRUE(ours.ok());
    auto theirs = ShmSegment::Map(UniqueFd(dup((*ours)->fd())), SmallSizes());
    ASSERT_TRUE(theirs.ok());
    theirs_ = *std::move(theirs);
    std::array<int, 2> ends{};
    ASSERT_EQ(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK, 0, ends.data()), 0);
    socket_ = UniqueFd(ends[1]);
    link_ = std::make_unique<ShmLink>("worker", *std::move(ours), UniqueFd(ends[0]), buffers_);
  }
  bool Submit(uint64_t call, uint32_t partials = 1) {
    DispatchFrame frame;
    frame.header.set_call_id(call);
    frame.header.set_partial_count(partials);
    frame.header.set_hidden_size(kHidden);
    frame.payload = Buffer(64);
    Completion done = [this, call](absl::StatusOr<CombineFrame> answer) {
      ++completions_[call];
      status_[call] = answer.status();
    };
    return link_->TrySubmit(Purpose::kDecode, frame, done);
  }
  void Answer(uint64_t call, float value = 1.0f) {
    Buffer sums(kHidden * sizeof(float));
    std::fill_n(reinterpret_cast<float*>(sums.data()), kHidden, value);
    CombineHeader header;
    header.set_call_id(call);
    header.set_partial_count(1);
    header.set_hidden_size(kHidden);
    const CombineFrame frame = BuildCombine(header, std::move(sums));
    Write(MessagePrefix(frame.header.SerializeAsString(), frame.payload.size()),
          frame.payload.span());
  }
  void Write(const std::string& prefix, std::span<const std::byte> payload) {
    ASSERT_TRUE(*writer().TryWrite(std::as_bytes(std::span(prefix)), payload));
  }
  RingWriter& writer() {
    if (!writer_) writer_.emplace(theirs_->answers(Purpose::kDecode));
    return *writer_;
  }
  Reason ReasonFor(uint64_t call) {
    EXPECT_EQ(completions_[call], 1);
    return base::ReasonOf(status_[call]);
  }

  const std::shared_ptr<BufferPool> buffers_ = std::make_shared<BufferPool>();
  std::unique_ptr<ShmSegment> theirs_;
  std::optional<RingWriter> writer_;
  UniqueFd socket_;
  std::map<uint64_t, int> completions_;
  std::map<uint64_t, absl::Status> status_;
  std::unique_ptr<ShmLink> link_;  // last: it completes what is left when it goes
};

TEST_F(LinkTest, AnAnswerThatBreaksAFrameRuleIsAFaultOfThatCallAlone) {
  ASSERT_TRUE(Submit(1) && Submit(2));
  Answer(1, std::numeric_limits<float>::infinity());
  Answer(2);
  EXPECT_TRUE(link_->Receive());
  EXPECT_EQ(ReasonFor(1), Reason::kNonFinite);
  EXPECT_TRUE(status_[2].ok());
  EXPECT_FALSE(link_->broken());
}

TEST_F(LinkTest, AnAnswerToNoCallBreaksTheRing) {
  ASSERT_TRUE(Submit(1));
  Answer(9);
  link_->Receive();
  EXPECT_TRUE(link_->broken());
  EXPECT_EQ(ReasonFor(1), Reason::kPeerLost);
  EXPECT_FALSE(Submit(2));
}

TEST_F(LinkTest, BytesThatAreNoFrameBreakTheRing) {
  ASSERT_TRUE(Submit(1));
  Write("no frame at all", {});
  link_->Receive();
  EXPECT_TRUE(link_->broken());
  EXPECT_EQ(ReasonFor(1), Reason::kPeerLost);
}

TEST_F(LinkTest, AWriterThatRunsAheadBreaksTheRing) {
  ASSERT_TRUE(Submit(1));
  theirs_->answers(Purpose::kDecode).control->written = kRingBytesMin * 4;
  link_->Receive();
  EXPECT_TRUE(link_->broken());
  EXPECT_EQ(ReasonFor(1), Reason::kPeerLost);
}

TEST_F(LinkTest, ACallWhoseAnswerMayNotFitIsNotTaken) {
  EXPECT_FALSE(Submit(1, kRingBytesMin / (kHidden * sizeof(float))));
  // Answers asked for count until they are read, cancelled or not.
  uint64_t taken = 0;
  while (Submit(10 + taken)) ++taken;
  EXPECT_EQ(taken, kRingBytesMin / RingRecordBytes(8192 + kHidden * sizeof(float)));
  EXPECT_TRUE(link_->Cancel(10));
  EXPECT_FALSE(link_->Cancel(10));
  EXPECT_EQ(ReasonFor(10), Reason::kCancelled);
  EXPECT_FALSE(Submit(100));
  Answer(10);
  link_->Receive();
  EXPECT_EQ(completions_[10], 1);
  EXPECT_TRUE(Submit(100));
}

TEST_F(LinkTest, TheEndOfTheSocketIsTheEndOfThePeerAfterItsLastAnswer) {
  ASSERT_TRUE(Submit(1) && Submit(2));
  Answer(1);
  socket_ = UniqueFd();
  link_->Awake(true);
  EXPECT_TRUE(link_->broken());
  EXPECT_TRUE(status_[1].ok());
  EXPECT_EQ(ReasonFor(2), Reason::kPeerLost);
}

TEST_F(LinkTest, MoreThanABellOnTheSocketIsAFault) {
  ASSERT_TRUE(Submit(1));
  ASSERT_EQ(send(socket_.get(), "hello", 5, 0), 5);
  link_->Awake(true);
  EXPECT_EQ(ReasonFor(1), Reason::kPeerLost);
}

TEST_F(LinkTest, ASleeperIsWokenAndNobodyElse) {
  ASSERT_TRUE(Submit(1));
  EXPECT_TRUE(link_->PrepareSleep());
  EXPECT_EQ(theirs_->client_asleep().load(), 1u);
  link_->Awake(false);
  char byte = 0;
  EXPECT_EQ(recv(socket_.get(), &byte, 1, MSG_DONTWAIT), -1);  // the worker was awake
  theirs_->server_asleep() = 1;
  ASSERT_TRUE(Submit(2));
  EXPECT_EQ(recv(socket_.get(), &byte, 1, MSG_DONTWAIT), 1);
  EXPECT_EQ(theirs_->server_asleep().load(), 0u);
}

/// A server, and peers made by hand.
class ServerTest : public testing::Test {
 protected:
  void SetUp() override {
    ShmServer::Options options;
    options.handler = [this](absl::StatusOr<DispatchFrame> frame, Reply reply) {
      std::lock_guard lock(mutex_);
      frames_.push_back(frame.status());
      replies_.push_back(std::move(reply));
      changed_.notify_all();
    };
    options.broken = [this](bool fault, const std::string&) {
      std::lock_guard lock(mutex_);
      (fault ? faults_ : ends_) += 1;
      changed_.notify_all();
    };
    auto server = ShmServer::Start(std::move(options));
    ASSERT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
  }
  absl::StatusOr<expert::v1::AgreeRingResponse> Agree(
      const std::string& host = base::HostIdentity()) {
    expert::v1::AgreeRingRequest request;
    request.set_ring_version(kRingVersion);
    request.set_host(host);
    return server_->Agree(request);
  }
  struct Joined {
    Ticket ticket = {};
    UniqueFd socket;
    std::unique_ptr<ShmSegment> segment;
    absl::Status welcome;
  };
  // With `ticket` instead of a new one, if it is given.
  Joined Join(const Ticket* ticket = nullptr) {
    Joined joined;
    const auto agreed = Agree();
    EXPECT_TRUE(agreed.ok()) << agreed.status();
    std::memcpy(joined.ticket.data(), agreed->ticket().data(), joined.ticket.size());
    if (ticket != nullptr) joined.ticket = *ticket;
    joined.socket = *ConnectAbstract(agreed->socket());
    joined.segment = *ShmSegment::Create(SmallSizes());
    EXPECT_TRUE(SendHello(joined.socket, joined.ticket, *joined.segment).ok());
    joined.welcome = AwaitWelcome(joined.socket, 10000);
    return joined;
  }
  template <class Condition>
  void WaitFor(Condition condition) {
    std::unique_lock lock(mutex_);
    ASSERT_TRUE(changed_.wait_for(lock, kPatience, condition));
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<absl::Status> frames_;
  std::vector<Reply> replies_;
  int faults_ = 0;
  int ends_ = 0;
  std::unique_ptr<ShmServer> server_;
};

TEST_F(ServerTest, ATicketIsGoodForOneConnection) {
  const Joined first = Join();
  EXPECT_TRUE(first.welcome.ok()) << first.welcome;
  EXPECT_FALSE(Join(&first.ticket).welcome.ok());
  const Ticket guessed = {};
  EXPECT_FALSE(Join(&guessed).welcome.ok());
  EXPECT_EQ(server_->links(), 1u);
}

TEST_F(ServerTest, AnotherHostOrVersionIsRefusedByName) {
  EXPECT_EQ(base::ReasonOf(Agree("elsewhere").status()), Reason::kUnsupported);
  EXPECT_EQ(base::ReasonOf(Agree("").status()), Reason::kUnsupported);
  expert::v1::AgreeRingRequest request;
  request.set_ring_version(2);
  request.set_host(base::HostIdentity());
  EXPECT_EQ(base::ReasonOf(server_->Agree(request).status()), Reason::kFrameVersion);
}

TEST_F(ServerTest, WhoSaysNoHelloIsDisconnected) {
  const auto agreed = Agree();
  const UniqueFd socket = *ConnectAbstract(agreed->socket());
  ASSERT_EQ(send(socket.get(), "GET / HTTP/1.1", 14, MSG_NOSIGNAL), 14);
  EXPECT_FALSE(AwaitWelcome(socket, 10000).ok());
  WaitFor([&] { return faults_ == 1; });
  EXPECT_TRUE(Join().welcome.ok());
}

TEST_F(ServerTest, AFaultInARingEndsThatRingOnly) {
  const Joined bad = Join();
  Joined good = Join();
  bad.segment->requests(Purpose::kDecode).control->written = 3;
  RingDoor(bad.socket);
  WaitFor([&] { return faults_ == 1; });
  RingWriter writer(good.segment->requests(Purpose::kDecode));
  ASSERT_TRUE(*writer.TryWrite({}, std::as_bytes(std::span("no frame"))));
  RingDoor(good.socket);
  WaitFor([&] { return frames_.size() == 1; });
  EXPECT_EQ(base::ReasonOf(frames_[0]), Reason::kFrameMalformed);
  EXPECT_EQ(server_->links(), 1u);
}

// The peer is killed with a record half written and a call unanswered.
TEST_F(ServerTest, AKilledPeerIsNoticedWithin100MsAndItsRingReclaimed) {
  auto best = std::chrono::steady_clock::duration::max();
  for (int i = 0; i < 5; ++i) {
    Joined peer = Join();
    ASSERT_TRUE(peer.welcome.ok());
    RingWriter writer(peer.segment->requests(Purpose::kDecode));
    ASSERT_TRUE(*writer.TryWrite({}, std::as_bytes(std::span("a call"))));
    RingDoor(peer.socket);
    WaitFor([&] { return frames_.size() == static_cast<size_t>(i) + 1; });
    peer.segment->requests(Purpose::kDecode).data[64] = std::byte{0xFF};
    const pid_t child = fork();
    if (child == 0) {
      for (;;) pause();  // holds the other end of the socket
    }
    peer.socket = UniqueFd();
    EXPECT_EQ(server_->links(), 1u);
    const auto killed = std::chrono::steady_clock::now();
    kill(child, SIGKILL);
    WaitFor([&] { return ends_ == i + 1; });
    best = std::min(best, std::chrono::steady_clock::now() - killed);
    waitpid(child, nullptr, 0);
    replies_[static_cast<size_t>(i)](BuildRefusal(1, absl::OkStatus()));  // too late, harmless
  }
  EXPECT_LT(best, std::chrono::milliseconds(100));
  EXPECT_EQ(faults_, 0);
}

}  // namespace
}  // namespace expertmesh::transport

// What every transport must do, run over each back end: one completion per call, whatever happens.
#include <gtest/gtest.h>

#include <condition_variable>
#include <deque>
#include <map>
#include <mutex>
#include <set>
#include <thread>

#include "expertmesh/expert/v1/expert.grpc.pb.h"
#include "services/base/status.h"
#include "services/rpc/channel.h"
#include "services/rpc/server.h"
#include "services/transport/expert_server.h"
#include "services/transport/frame_door.h"
#include "services/transport/grpc_transport.h"
#include "services/transport/inproc.h"
#include "services/transport/shm_transport.h"
#include "tests/services/transport/fixed_transport.h"
#include "tests/services/transport/test_frames.h"
#include "tests/support/temp_dir.h"

namespace expertmesh::transport {
namespace {

using base::Reason;
constexpr auto kPatience = std::chrono::seconds(20);
constexpr size_t kHidden = 16;

/// The experts of these tests: doubles each row, or holds the answer back until told.
class Doubler {
 public:
  void OnFrame(absl::StatusOr<DispatchFrame> frame, Reply reply) {
    if (!frame.ok()) {
      reply(BuildRefusal(0, frame.status()));
      return;
    }
    std::unique_lock lock(mutex_);
    if (hold_) {
      held_.emplace_back(*std::move(frame), std::move(reply));
      changed_.notify_all();
      return;
    }
    lock.unlock();
    Answer(*frame, reply);
  }
  void Hold() {
    std::lock_guard lock(mutex_);
    hold_ = true;
  }
  // Answers what is held, newest first.
  void ReleaseBackwards(size_t count) {
    std::unique_lock lock(mutex_);
    changed_.wait_for(lock, kPatience, [&] { return held_.size() >= count; });
    hold_ = false;
    for (; !held_.empty(); held_.pop_back()) Answer(held_.back().first, held_.back().second);
  }
  void WaitHeld(size_t count) {
    std::unique_lock lock(mutex_);
    ASSERT_TRUE(changed_.wait_for(lock, kPatience, [&] { return held_.size() >= count; }));
  }

 private:
  static void Answer(const DispatchFrame& frame, const Reply& reply) {
    const auto batch = CheckDispatch(frame);
    if (!batch.ok()) {
      reply(BuildRefusal(frame.header.call_id(), batch.status()));
      return;
    }
    Buffer sums(batch->partials.size() * kHidden * sizeof(float));
    const auto* rows = reinterpret_cast<const float*>(batch->rows);
    auto* out = reinterpret_cast<float*>(sums.data());
    for (size_t p = 0; p < batch->partials.size(); ++p) {
      for (size_t c = 0; c < kHidden; ++c) {
        out[p * kHidden + c] = 2 * rows[batch->partials[p].row * kHidden + c];
      }
    }
    CombineHeader header;
    header.set_call_id(frame.header.call_id());
    header.set_partial_count(frame.header.partial_count());
    header.set_hidden_size(kHidden);
    reply(BuildCombine(header, std::move(sums)));
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  bool hold_ = false;
  std::deque<std::pair<DispatchFrame, Reply>> held_;
};

/// Collects completions and connection changes.
class Log {
 public:
  Completion For(uint64_t call) {
    return [this, call](absl::StatusOr<CombineFrame> answer) {
      std::lock_guard lock(mutex_);
      ++completions_[call];
      if (answer.ok()) sums_[call].assign(answer->sums().begin(), answer->sums().end());
      status_[call] = answer.status();
      changed_.notify_all();
    };
  }
  PeerListener Listener() {
    return [this](const std::string& peer, bool up, const std::string& how) {
      std::lock_guard lock(mutex_);
      up_[peer] = up;
      how_[peer] = how;
      changed_.notify_all();
    };
  }
  absl::Status Wait(uint64_t call) {
    std::unique_lock lock(mutex_);
    EXPECT_TRUE(changed_.wait_for(lock, kPatience, [&] { return completions_[call] > 0; }));
    EXPECT_EQ(completions_[call], 1);
    return status_[call];
  }
  void WaitUp(const std::string& peer, bool up) {
    std::unique_lock lock(mutex_);
    ASSERT_TRUE(
        changed_.wait_for(lock, kPatience, [&] { return up_.contains(peer) && up_[peer] == up; }));
  }
  void WaitHow(const std::string& peer, const std::string& how) {
    std::unique_lock lock(mutex_);
    ASSERT_TRUE(changed_.wait_for(lock, kPatience, [&] { return how_[peer] == how; }));
  }
  const std::vector<float>& sums(uint64_t call) { return sums_[call]; }
  int completions(uint64_t call) {
    std::lock_guard lock(mutex_);
    return completions_[call];
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::map<uint64_t, int> completions_;
  std::map<uint64_t, absl::Status> status_;
  std::map<uint64_t, std::vector<float>> sums_;
  std::map<std::string, bool> up_;
  std::map<std::string, std::string> how_;
};

/// kShmWaits: answers are taken in by a thread of the owner's in Transport::Wait.
enum class Backend { kInproc, kFixed, kGrpcTcp, kGrpcUnix, kShm, kShmWaits };
bool IsShm(Backend backend) { return backend == Backend::kShm || backend == Backend::kShmWaits; }

class ConformanceTest : public testing::TestWithParam<Backend> {
 protected:
  void SetUp() override {
    if (GetParam() == Backend::kInproc) {
      transport_ = std::make_unique<InprocTransport>(
          [this](absl::StatusOr<DispatchFrame> f, Reply r) {
            experts_.OnFrame(std::move(f), std::move(r));
          },
          log_.Listener());
      peer_ = {"experts", 7, "inproc"};
    } else if (GetParam() == Backend::kFixed) {
      transport_ = std::make_unique<FixedTransport>(
          std::vector<std::string>{"experts"},
          [this](absl::StatusOr<DispatchFrame> f, Reply r) {
            experts_.OnFrame(std::move(f), std::move(r));
          },
          log_.Listener());
      peer_ = {"experts", 7, "fixed"};
    } else {
      StartServer();
      MakeTransport();
      peer_ = {"experts", 7, server_->address(), door_->address()};
    }
    transport_->AddPeer(peer_);
    log_.WaitUp("experts", true);
    if (IsShm(GetParam())) log_.WaitHow("experts", "shm");
  }
  void MakeTransport() {
    if (!IsShm(GetParam())) {
      transport_ = std::make_unique<GrpcTransport>(1, log_.Listener());
      return;
    }
    ShmTransport::Options options;
    options.incarnation = 1;
    options.own_thread = GetParam() == Backend::kShm;
    if (options.own_thread) {  // so small that many a call takes the stream
      options.sizes.requests = {kRingBytesMin, kRingBytesMin};
      options.sizes.answers = {kRingBytesMin, kRingBytesMin};
    }
    transport_ = std::make_unique<ShmTransport>(options, log_.Listener());
    if (options.own_thread) return;
    waiter_ = std::thread([this] {
      while (!stop_waiting_) transport_->Wait(bell_, std::nullopt);
    });
  }
  void TearDown() override {
    experts_.ReleaseBackwards(0);
    stop_waiting_ = true;
    bell_.Ring();
    if (waiter_.joinable()) waiter_.join();
    transport_.reset();
    if (server_) server_->Shutdown(std::chrono::milliseconds(0));
    if (door_) door_->Stop(std::chrono::milliseconds(0));
  }
  void StartServer() {
    if (IsShm(GetParam())) {
      ShmServer::Options options;
      options.handler = [this](absl::StatusOr<DispatchFrame> f, Reply r) {
        experts_.OnFrame(std::move(f), std::move(r));
      };
      auto rings = ShmServer::Start(std::move(options));
      ASSERT_TRUE(rings.ok()) << rings.status();
      rings_ = *std::move(rings);
    }
    service_ = std::make_unique<ExpertServer>(
        7, [](const auto&) { return expert::v1::DescribeResponse(); }, rings_.get());
    const bool tcp = GetParam() == Backend::kGrpcTcp;
    FrameDoor::Options frames;
    frames.listen = tcp ? "127.0.0.1:0" : "unix:" + dir_.path() + "/f";
    frames.incarnation = 7;
    frames.handler = [this](absl::StatusOr<DispatchFrame> f, Reply r) {
      experts_.OnFrame(std::move(f), std::move(r));
    };
    auto door = FrameDoor::Start(std::move(frames));
    ASSERT_TRUE(door.ok()) << door.status();
    door_ = *std::move(door);
    rpc::Server::Options options;
    options.listen = tcp ? "127.0.0.1:0" : "unix:" + dir_.path() + "/s";
    options.metrics = nullptr;
    auto server = rpc::Server::Start(options, {service_.get()});
    ASSERT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
  }
  DispatchFrame Frame(uint64_t call, float value, size_t rows = 1) {
    return UniformFrame(call, value, rows, kHidden, *buffers_);
  }

  test_support::TempDir dir_;
  Log log_;
  Doubler experts_;
  std::shared_ptr<BufferPool> buffers_ = std::make_shared<BufferPool>();
  std::unique_ptr<ShmServer> rings_;
  std::unique_ptr<ExpertServer> service_;
  std::unique_ptr<FrameDoor> door_;
  std::unique_ptr<rpc::Server> server_;
  std::unique_ptr<Transport> transport_;
  Bell bell_;
  std::atomic<bool> stop_waiting_{false};
  std::thread waiter_;
  Peer peer_;
};

TEST_P(ConformanceTest, EveryCallIsAnsweredOnceWithItsOwnSums) {
  for (uint64_t call = 1; call <= 50; ++call) {
    const Purpose purpose = call % 2 ? Purpose::kDecode : Purpose::kPrefill;
    transport_->Submit("experts", purpose, Frame(call, static_cast<float>(call), 1 + call % 9),
                       log_.For(call));
  }
  for (uint64_t call = 1; call <= 50; ++call) {
    ASSERT_TRUE(log_.Wait(call).ok()) << log_.Wait(call);
    EXPECT_EQ(log_.sums(call), std::vector<float>((1 + call % 9) * kHidden, 2.0f * call));
  }
}

TEST_P(ConformanceTest, ALargeFrameComesThroughWhole) {
  transport_->Submit("experts", Purpose::kPrefill, Frame(1, 0.5f, 20000), log_.For(1));
  ASSERT_TRUE(log_.Wait(1).ok()) << log_.Wait(1);
  EXPECT_EQ(log_.sums(1), std::vector<float>(20000 * kHidden, 1.0f));
}

TEST_P(ConformanceTest, ABadFrameGetsItsReasonAndTheConnectionStays) {
  DispatchFrame wrong_version = Frame(1, 1);
  wrong_version.header.set_protocol_version(9);
  transport_->Submit("experts", Purpose::kDecode, std::move(wrong_version), log_.For(1));
  EXPECT_EQ(base::ReasonOf(log_.Wait(1)), Reason::kFrameVersion);
  DispatchFrame broken = Frame(2, 1);
  *broken.payload.data() ^= std::byte{0x10};
  transport_->Submit("experts", Purpose::kDecode, std::move(broken), log_.For(2));
  EXPECT_EQ(base::ReasonOf(log_.Wait(2)), Reason::kFrameChecksum);
  transport_->Submit("experts", Purpose::kDecode, Frame(3, 1), log_.For(3));
  EXPECT_TRUE(log_.Wait(3).ok());
}

TEST_P(ConformanceTest, AnswersMayOvertakeEachOtherWhereThatIsDeclared) {
  if (!transport_->capabilities().reorders) {
    // Then calls are served in order, one at a time: the second waits for the first.
    experts_.Hold();
    transport_->Submit("experts", Purpose::kDecode, Frame(1, 1), log_.For(1));
    experts_.WaitHeld(1);
    experts_.ReleaseBackwards(1);
    EXPECT_TRUE(log_.Wait(1).ok());
    return;
  }
  experts_.Hold();
  for (uint64_t call = 1; call <= 3; ++call) {
    transport_->Submit("experts", Purpose::kDecode, Frame(call, static_cast<float>(call)),
                       log_.For(call));
  }
  experts_.ReleaseBackwards(3);
  for (uint64_t call = 1; call <= 3; ++call) {
    ASSERT_TRUE(log_.Wait(call).ok());
    EXPECT_EQ(log_.sums(call)[0], 2.0f * call);
  }
}

TEST_P(ConformanceTest, CancelCompletesTheCallAndALateAnswerIsDropped) {
  experts_.Hold();
  if (!transport_->capabilities().cancels) {
    // Then the call goes on to its answer.
    transport_->Submit("experts", Purpose::kDecode, Frame(1, 1), log_.For(1));
    experts_.WaitHeld(1);
    transport_->Cancel(1);
    experts_.ReleaseBackwards(1);
    EXPECT_TRUE(log_.Wait(1).ok());
    return;
  }
  transport_->Submit("experts", Purpose::kDecode, Frame(1, 1), log_.For(1));
  experts_.WaitHeld(1);
  transport_->Submit("experts", Purpose::kDecode, Frame(2, 1), log_.For(2));
  transport_->Cancel(2);
  EXPECT_EQ(base::ReasonOf(log_.Wait(2)), Reason::kCancelled);
  experts_.ReleaseBackwards(1);
  EXPECT_TRUE(log_.Wait(1).ok());
  transport_->Submit("experts", Purpose::kDecode, Frame(3, 1), log_.For(3));
  EXPECT_TRUE(log_.Wait(3).ok());
  EXPECT_EQ(log_.completions(2), 1);
}

TEST_P(ConformanceTest, AnUnknownPeerIsLostAtOnce) {
  transport_->Submit("nobody", Purpose::kDecode, Frame(1, 1), log_.For(1));
  EXPECT_EQ(base::ReasonOf(log_.Wait(1)), Reason::kPeerLost);
}

TEST_P(ConformanceTest, PeersComeAndGoOnlyWhereThatIsDeclared) {
  if (transport_->capabilities().dynamic_peers) return;
  transport_->AddPeer({"late", 7, "fixed"});
  transport_->Submit("late", Purpose::kDecode, Frame(1, 1), log_.For(1));
  EXPECT_EQ(base::ReasonOf(log_.Wait(1)), Reason::kPeerLost);
}

// Where sizes are announced first, a frame beyond the registered buffers never travels.
TEST_P(ConformanceTest, AFrameBeyondTheRegisteredBuffersIsRefused) {
  if (!transport_->capabilities().announces_sizes) return;
  transport_->Submit("experts", Purpose::kPrefill, Frame(1, 1, 2 * FixedTransport::kRowsMax),
                     log_.For(1));
  EXPECT_EQ(base::ReasonOf(log_.Wait(1)), Reason::kFrameMalformed);
  transport_->Submit("experts", Purpose::kPrefill, Frame(2, 1), log_.For(2));
  EXPECT_TRUE(log_.Wait(2).ok());
}

TEST_P(ConformanceTest, RemovingAPeerEndsItsCalls) {
  if (transport_->capabilities().dynamic_peers && GetParam() != Backend::kInproc) {
    experts_.Hold();
    transport_->Submit("experts", Purpose::kDecode, Frame(2, 1), log_.For(2));
    experts_.WaitHeld(1);
    transport_->RemovePeer("experts");
    EXPECT_EQ(base::ReasonOf(log_.Wait(2)), Reason::kPeerLost);
  }
  transport_->RemovePeer("experts");
  log_.WaitUp("experts", false);
  transport_->Submit("experts", Purpose::kDecode, Frame(1, 1), log_.For(1));
  EXPECT_EQ(base::ReasonOf(log_.Wait(1)), Reason::kPeerLost);
}

INSTANTIATE_TEST_SUITE_P(Backends, ConformanceTest,
                         testing::Values(Backend::kInproc, Backend::kFixed, Backend::kGrpcTcp,
                                         Backend::kGrpcUnix, Backend::kShm, Backend::kShmWaits));

using GrpcOnlyTest = ConformanceTest;

TEST_P(GrpcOnlyTest, ADeadServerEndsCallsInFlightAndAReturningOneIsFound) {
  experts_.Hold();
  transport_->Submit("experts", Purpose::kDecode, Frame(1, 1), log_.For(1));
  experts_.WaitHeld(1);
  server_->Shutdown(std::chrono::milliseconds(0));
  door_->Stop(std::chrono::milliseconds(0));
  EXPECT_EQ(base::ReasonOf(log_.Wait(1)), Reason::kPeerLost);
  log_.WaitUp("experts", false);
  server_.reset();
  door_.reset();
  experts_.ReleaseBackwards(0);
  StartServer();
  peer_.address = server_->address();
  peer_.frames = door_->address();
  transport_->AddPeer(peer_);
  log_.WaitUp("experts", true);
  if (IsShm(GetParam())) log_.WaitHow("experts", "shm");
  transport_->Submit("experts", Purpose::kDecode, Frame(2, 1), log_.For(2));
  EXPECT_TRUE(log_.Wait(2).ok());
}

TEST_P(GrpcOnlyTest, AnotherIncarnationAtTheAddressIsNotAPeer) {
  transport_->AddPeer({"stranger", 8, server_->address(), door_->address()});
  const auto patience = std::chrono::steady_clock::now() + kPatience;
  absl::Status status;  // first that there is no connection yet
  for (uint64_t call = 1; status.message().find("incarnation") == std::string::npos; ++call) {
    ASSERT_LT(std::chrono::steady_clock::now(), patience) << status;
    std::this_thread::yield();
    transport_->Submit("stranger", Purpose::kDecode, Frame(call, 1), log_.For(call));
    status = log_.Wait(call);
    ASSERT_EQ(base::ReasonOf(status), Reason::kPeerLost);
  }
}

// A peer that has sent its last call still gets every answer, and only then the end of the stream.
TEST_P(GrpcOnlyTest, CallsBeforeAHalfCloseAreAnswered) {
  const auto channel = rpc::MakeChannel(door_->address());
  const auto stub = expert::v1::ExpertService::NewStub(channel);
  for (const bool held : {true, false}) {
    if (held) experts_.Hold();
    grpc::ClientContext context;
    const auto stream = stub->Dispatch(&context);
    for (uint64_t call = 1; call <= 5; ++call) {
      const DispatchFrame frame = Frame(call, static_cast<float>(call));
      expert::v1::DispatchRequest request;
      *request.mutable_header() = frame.header;
      request.set_payload(frame.payload.data(), frame.payload.size());
      ASSERT_TRUE(stream->Write(request));
    }
    ASSERT_TRUE(stream->WritesDone());
    if (held) experts_.ReleaseBackwards(5);
    std::set<uint64_t> answered;
    expert::v1::DispatchResponse response;
    while (stream->Read(&response)) answered.insert(response.header().call_id());
    EXPECT_EQ(answered, (std::set<uint64_t>{1, 2, 3, 4, 5}));
    EXPECT_TRUE(stream->Finish().ok());
  }
}

INSTANTIATE_TEST_SUITE_P(Backends, GrpcOnlyTest,
                         testing::Values(Backend::kGrpcTcp, Backend::kGrpcUnix, Backend::kShm,
                                         Backend::kShmWaits));

}  // namespace
}  // namespace expertmesh::transport

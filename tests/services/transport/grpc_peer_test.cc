// The transport and the door against gRPC's own server and client: they speak the same protocol.
#include <gtest/gtest.h>

#include <condition_variable>
#include <functional>
#include <mutex>
#include <thread>

#include "expertmesh/expert/v1/expert.grpc.pb.h"
#include "services/base/status.h"
#include "services/rpc/channel.h"
#include "services/rpc/server.h"
#include "services/rpc/status.h"
#include "services/transport/frame_door.h"
#include "services/transport/grpc_transport.h"
#include "tests/services/transport/test_frames.h"
#include "tests/support/temp_dir.h"

namespace expertmesh::transport {
namespace {

using base::Reason;
constexpr auto kPatience = std::chrono::seconds(20);
constexpr size_t kHidden = 16;
constexpr uint64_t kIncarnation = 7;

DispatchFrame Frame(uint64_t call, size_t rows) {
  const auto buffers = std::make_shared<BufferPool>();
  return UniformFrame(call, 0.5f, rows, kHidden, *buffers);
}

CombineFrame Ones(const DispatchHeader& of) {
  Buffer sums(of.partial_count() * kHidden * sizeof(float));
  std::fill_n(reinterpret_cast<float*>(sums.data()), of.partial_count() * kHidden, 1.0f);
  CombineHeader header;
  header.set_call_id(of.call_id());
  header.set_partial_count(of.partial_count());
  header.set_hidden_size(kHidden);
  return BuildCombine(header, std::move(sums));
}

/// An expert worker on gRPC's own stack: answers each call with ones, or ends the stream.
class GrpcExperts final : public expert::v1::ExpertService::Service {
 public:
  grpc::Status Dispatch(grpc::ServerContext* context,
                        grpc::ServerReaderWriter<expert::v1::DispatchResponse,
                                                 expert::v1::DispatchRequest>* stream) override {
    context->AddInitialMetadata(internal::kIncarnationKey, std::to_string(kIncarnation));
    stream->SendInitialMetadata();
    expert::v1::DispatchRequest request;
    while (stream->Read(&request)) {
      if (request.header().layer() == kEndAtLayer) {
        return grpc::Status(grpc::StatusCode::UNAVAILABLE, "enough");
      }
      const CombineFrame answer = Ones(request.header());
      expert::v1::DispatchResponse response;
      *response.mutable_header() = answer.header;
      response.set_payload(answer.payload.data(), answer.payload.size());
      stream->Write(response);
    }
    return grpc::Status::OK;
  }
  static constexpr uint32_t kEndAtLayer = 99;
};

/// What a transport says and answers.
class Log {
 public:
  PeerListener Listener() {
    return [this](const std::string&, bool up, const std::string& why) {
      std::lock_guard lock(mutex_);
      up_ = up;
      why_ = why;
      changed_.notify_all();
    };
  }
  Completion Done() {
    return [this](absl::StatusOr<CombineFrame> answer) {
      std::lock_guard lock(mutex_);
      answers_.push_back(std::move(answer));
      changed_.notify_all();
    };
  }
  void WaitUp(bool up) {
    std::unique_lock lock(mutex_);
    ASSERT_TRUE(changed_.wait_for(lock, kPatience, [&] { return up_ == up; })) << why_;
  }
  const std::vector<absl::StatusOr<CombineFrame>>& WaitAnswers(size_t count) {
    std::unique_lock lock(mutex_);
    EXPECT_TRUE(changed_.wait_for(lock, kPatience, [&] { return answers_.size() >= count; }));
    return answers_;
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::optional<bool> up_;
  std::string why_;
  std::vector<absl::StatusOr<CombineFrame>> answers_;
};

TEST(GrpcPeerTest, TheTransportTalksToGrpcsOwnServer) {
  GrpcExperts experts;
  auto server = rpc::Server::Start({}, {&experts});
  ASSERT_TRUE(server.ok()) << server.status();
  Log log;
  GrpcTransport transport(1, log.Listener());
  transport.AddPeer({"e", kIncarnation, (*server)->address(), (*server)->address()});
  log.WaitUp(true);
  for (uint64_t call = 1; call <= 20; ++call) {
    transport.Submit("e", call % 2 ? Purpose::kDecode : Purpose::kPrefill,
                     Frame(call, call == 20 ? 30'000 : call), log.Done());
  }
  size_t floats = 0;
  for (const auto& answer : log.WaitAnswers(20)) {
    ASSERT_TRUE(answer.ok()) << answer.status();
    floats += answer->sums().size();
    EXPECT_EQ(answer->sums().front(), 1.0f);
  }
  EXPECT_EQ(floats, (19 * 20 / 2 + 30'000) * kHidden);
  // The server ends the stream with a status: it is said, and the peer is dialled again.
  DispatchFrame end = Frame(21, 1);
  end.header.set_layer(GrpcExperts::kEndAtLayer);
  transport.Submit("e", Purpose::kDecode, std::move(end), log.Done());
  EXPECT_EQ(base::ReasonOf(log.WaitAnswers(21).back().status()), Reason::kPeerLost);
  log.WaitUp(false);
  log.WaitUp(true);
  transport.Submit("e", Purpose::kDecode, Frame(22, 1), log.Done());
  EXPECT_TRUE(log.WaitAnswers(22).back().ok());
}

class FrameDoorTest : public testing::Test {
 protected:
  void Start(const std::string& listen) {
    FrameDoor::Options options;
    options.listen = listen;
    options.incarnation = kIncarnation;
    options.handler = [](absl::StatusOr<DispatchFrame> frame, const Reply& reply) {
      reply(frame.ok() ? Ones(frame->header) : BuildRefusal(0, frame.status()));
    };
    auto door = FrameDoor::Start(std::move(options));
    ASSERT_TRUE(door.ok()) << door.status();
    door_ = *std::move(door);
    stub_ = expert::v1::ExpertService::NewStub(rpc::MakeChannel(door_->address()));
  }
  grpc::Status StatusWith(const std::string& key, const std::string& value) {
    grpc::ClientContext context;
    context.AddMetadata(key, value);
    const auto stream = stub_->Dispatch(&context);
    expert::v1::DispatchResponse response;
    EXPECT_FALSE(stream->Read(&response));
    return stream->Finish();
  }

  test_support::TempDir dir_;
  std::unique_ptr<FrameDoor> door_;
  std::unique_ptr<expert::v1::ExpertService::Stub> stub_;
};

TEST_F(FrameDoorTest, GrpcsOwnClientGetsAnswersRefusalsAndReasons) {
  Start("127.0.0.1:0");
  EXPECT_EQ(base::ReasonOf(rpc::FromGrpcStatus(StatusWith(internal::kExpectedKey, "8"))),
            Reason::kPeerLost);
  EXPECT_EQ(base::ReasonOf(rpc::FromGrpcStatus(StatusWith("x-expertmesh-tenant", "a b"))),
            Reason::kBadMetadata);
  grpc::ClientContext unary;
  unary.set_deadline(std::chrono::system_clock::now() + kPatience);
  expert::v1::DescribeResponse description;
  EXPECT_EQ(stub_->Describe(&unary, {}, &description).error_code(),
            grpc::StatusCode::UNIMPLEMENTED);

  grpc::ClientContext context;
  const auto stream = stub_->Dispatch(&context);
  expert::v1::DispatchResponse response;
  for (const size_t rows : {1, 1000, 30'000}) {
    const DispatchFrame frame = Frame(rows, rows);
    expert::v1::DispatchRequest request;
    *request.mutable_header() = frame.header;
    request.set_payload(frame.payload.data(), frame.payload.size());
    ASSERT_TRUE(stream->Write(request));
    ASSERT_TRUE(stream->Read(&response));
    EXPECT_EQ(response.header().call_id(), rows);
    EXPECT_EQ(response.payload().size(), rows * kHidden * sizeof(float));
  }
  // A message without a frame in it is refused, and the stream goes on.
  ASSERT_TRUE(stream->Write({}));
  ASSERT_TRUE(stream->Read(&response));
  EXPECT_EQ(base::ReasonOf(rpc::FromRpcStatus(response.header().status())),
            Reason::kFrameMalformed);
  ASSERT_TRUE(stream->WritesDone());
  EXPECT_FALSE(stream->Read(&response));
  EXPECT_TRUE(stream->Finish().ok());
}

TEST_F(FrameDoorTest, ANameIsLookedUpAndOneThatIsNoneIsSaid) {
  Start("localhost:0");
  Log log;
  GrpcTransport transport(1, log.Listener());
  transport.AddPeer({"named", kIncarnation, "", door_->address()});
  log.WaitUp(true);
  transport.Submit("named", Purpose::kDecode, Frame(1, 1), log.Done());
  EXPECT_TRUE(log.WaitAnswers(1).back().ok());
  GrpcTransport nowhere(1, [](const std::string&, bool, const std::string&) {});
  nowhere.AddPeer({"nowhere", kIncarnation, "", "name.invalid:1"});
  const auto patience = std::chrono::steady_clock::now() + kPatience;
  std::string why;
  while (why.find("cannot resolve name.invalid:1") == std::string::npos) {
    ASSERT_LT(std::chrono::steady_clock::now(), patience) << why;
    nowhere.Submit("nowhere", Purpose::kDecode, Frame(1, 1),
                   [&](const auto& answer) { why = std::string(answer.status().message()); });
  }
}

TEST_F(FrameDoorTest, AStopWaitsForOpenStreamsAndRepliesMayOutliveTheDoor) {
  std::mutex mutex;
  std::condition_variable came;
  std::vector<std::function<void()>> held;
  FrameDoor::Options options;
  options.listen = "127.0.0.1:0";
  options.handler = [&](absl::StatusOr<DispatchFrame> frame, const Reply& reply) {
    std::lock_guard lock(mutex);
    held.push_back([header = frame->header, reply] { reply(Ones(header)); });
    came.notify_all();
  };
  auto door = FrameDoor::Start(options);
  ASSERT_TRUE(door.ok()) << door.status();
  const auto stub = expert::v1::ExpertService::NewStub(rpc::MakeChannel((*door)->address()));
  grpc::ClientContext context;
  const auto stream = stub->Dispatch(&context);
  for (uint64_t call = 1; call <= 2; ++call) {
    const DispatchFrame frame = Frame(call, 2000);
    expert::v1::DispatchRequest request;
    *request.mutable_header() = frame.header;
    request.set_payload(frame.payload.data(), frame.payload.size());
    ASSERT_TRUE(stream->Write(request));
  }
  ASSERT_TRUE(stream->WritesDone());
  {
    std::unique_lock lock(mutex);
    ASSERT_TRUE(came.wait_for(lock, kPatience, [&] { return held.size() == 2; }));
  }
  const auto start = std::chrono::steady_clock::now();
  std::thread stop([&] { (*door)->Stop(2 * kPatience); });
  for (auto& reply : held) reply();
  expert::v1::DispatchResponse response;
  held.clear();
  EXPECT_TRUE(stream->Read(&response));
  EXPECT_TRUE(stream->Read(&response));
  EXPECT_EQ(response.payload().size(), 2000 * kHidden * sizeof(float));
  EXPECT_TRUE(stream->Finish().ok());
  stop.join();
  EXPECT_LT(std::chrono::steady_clock::now() - start, kPatience);

  auto other = FrameDoor::Start(options);
  ASSERT_TRUE(other.ok()) << other.status();
  Log log;
  GrpcTransport transport(1, log.Listener());
  transport.AddPeer({"held", 0, "", (*other)->address()});
  log.WaitUp(true);
  transport.Submit("held", Purpose::kDecode, Frame(3, 1), log.Done());
  {
    std::unique_lock lock(mutex);
    ASSERT_TRUE(came.wait_for(lock, kPatience, [&] { return held.size() == 1; }));
  }
  other->reset();
  EXPECT_EQ(base::ReasonOf(log.WaitAnswers(1).back().status()), Reason::kPeerLost);
  held.front()();
}

TEST_F(FrameDoorTest, AddressesThatCanBeListenedOnAndThoseThatCannot) {
  Start("unix:" + dir_.path() + "/door");
  FrameDoor::Options options;
  options.listen = door_->address();
  EXPECT_EQ(base::ReasonOf(FrameDoor::Start(options).status()), Reason::kInvalidArgument);
  Start("127.0.0.1:0");
  options.listen = door_->address();
  EXPECT_EQ(base::ReasonOf(FrameDoor::Start(options).status()), Reason::kInvalidArgument);
  Start("0.0.0.0:0");  // both families, where there are two
  Log log;
  GrpcTransport transport(1, log.Listener());
  const std::string port = door_->address().substr(door_->address().rfind(':'));
  transport.AddPeer({"four", kIncarnation, "", "127.0.0.1" + port});
  log.WaitUp(true);
  options.listen = "127.0.0.1:70000";
  EXPECT_EQ(base::ReasonOf(FrameDoor::Start(options).status()), Reason::kInvalidArgument);
}

}  // namespace
}  // namespace expertmesh::transport

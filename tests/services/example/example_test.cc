// The example process as its peers see it: over a real socket.
#include <grpcpp/create_channel.h>
#include <gtest/gtest.h>

#include <string>

#include "services/base/status.h"
#include "services/example/example_process.h"
#include "services/rpc/channel.h"
#include "services/rpc/identity.h"
#include "services/rpc/status.h"

namespace expertmesh::example {
namespace {

using base::Reason;

class ExampleTest : public testing::Test {
 protected:
  void SetUp() override {
    auto process = lifecycle::Process::Start({.name = "example-0", .role = "example"}, &metrics_);
    ASSERT_TRUE(process.ok()) << process.status();
    process_ = *std::move(process);
    auto example = ExampleProcess::Start("127.0.0.1:0", *process_, metrics_);
    ASSERT_TRUE(example.ok()) << example.status();
    example_ = *std::move(example);
    stub_ = v1::ExampleService::NewStub(rpc::MakeChannel(example_->address()));
  }
  absl::StatusOr<uint32_t> Count(const std::string& text, const rpc::Identity& identity = {}) {
    grpc::ClientContext context;
    rpc::PrepareClient(context, identity, std::chrono::seconds(30));
    v1::CountWordsRequest request;
    request.set_text(text);
    v1::CountWordsResponse response;
    const grpc::Status status = stub_->CountWords(&context, request, &response);
    if (!status.ok()) return rpc::FromGrpcStatus(status);
    return response.word_count();
  }

  telemetry::Metrics metrics_{"example"};
  std::unique_ptr<lifecycle::Process> process_;
  std::unique_ptr<ExampleProcess> example_;
  std::unique_ptr<v1::ExampleService::Stub> stub_;
};

TEST_F(ExampleTest, Counts) { EXPECT_EQ(*Count("three little words"), 3u); }

TEST_F(ExampleTest, NamesItsReasons) {
  EXPECT_EQ(base::ReasonOf(Count("").status()), Reason::kInvalidArgument);
  EXPECT_EQ(base::ReasonOf(Count("x", {.tenant = "no spaces"}).status()), Reason::kBadMetadata);
}

TEST_F(ExampleTest, WantsADeadline) {
  const auto foreign = v1::ExampleService::NewStub(
      grpc::CreateChannel(example_->address(), grpc::InsecureChannelCredentials()));
  grpc::ClientContext context;
  v1::CountWordsRequest request;
  request.set_text("x");
  v1::CountWordsResponse response;
  EXPECT_EQ(base::ReasonOf(rpc::FromGrpcStatus(foreign->CountWords(&context, request, &response))),
            Reason::kDeadlineRequired);
}

TEST_F(ExampleTest, IsReadyWhileItServesAndGoneAfterStop) {
  EXPECT_TRUE(process_->ready());
  example_->Stop(std::chrono::milliseconds(0));
  EXPECT_EQ(base::ReasonOf(Count("x").status()), Reason::kPeerLost);
}

TEST_F(ExampleTest, SaysWhenItsAddressIsTaken) {
  auto second = ExampleProcess::Start(example_->address(), *process_, metrics_);
  EXPECT_EQ(base::ReasonOf(second.status()), Reason::kInvalidArgument);
}

}  // namespace
}  // namespace expertmesh::example

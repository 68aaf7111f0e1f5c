// Deadlines and hang-ups reach from the client to the call that an expert worker holds: a worker
// that stands still (SIGSTOP, with every connection open) keeps no lane longer than its caller
// wants it.
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <chrono>

#include "expertmesh/inference/v1/inference.grpc.pb.h"
#include "services/rpc/channel.h"
#include "services/rpc/status.h"
#include "tests/support/local_mesh.h"
#include "tests/support/tiny_model.h"

namespace expertmesh::test_support {
namespace {

using std::chrono::steady_clock;

// Far above what the tests allow, so that only the caller can end a lane in time.
constexpr const char* kExpertTimeoutMs = "300000";

class DeadlineTest : public testing::Test {
 protected:
  void SetUp() override {
    MeshSpec spec;
    spec.model = TinyModel("tiny-v3");
    spec.slices = {"0-15", "16-31"};
    spec.attention_flags = {"--expert-timeout-ms", kExpertTimeoutMs, "--expert-wait-ms", "300000"};
    spec.gateway = true;
    mesh_ = std::make_unique<LocalMesh>(spec);
    ASSERT_TRUE(mesh_->WaitReady());
    stub_ = inference::v1::InferenceService::NewStub(rpc::MakeChannel(mesh_->Address("gateway")));
    request_.mutable_model()->set_model("tiny-v3");
    request_.add_segments()->mutable_text()->set_text("Once upon a time");
    request_.mutable_sampling()->set_seed(1);
    request_.mutable_sampling()->set_temperature(1.5f);
    request_.set_max_tokens(400);
  }
  bool LanesAre(uint64_t count) {
    return mesh_->WaitView([&](const router::v1::View& view) {
      for (const auto& member : view.members()) {
        if (member.hello().role() == common::v1::ROLE_ATTENTION_WORKER) {
          return member.report().load() + member.report().queued() == count;
        }
      }
      return false;
    });
  }

  std::unique_ptr<LocalMesh> mesh_;
  std::unique_ptr<inference::v1::InferenceService::Stub> stub_;
  inference::v1::GenerateRequest request_;
};

TEST_F(DeadlineTest, TheDeadlineOfTheCallerEndsALaneWhoseExpertStandsStill) {
  mesh_->process("expert-1").Signal(SIGSTOP);
  grpc::ClientContext context;
  const auto start = steady_clock::now();
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(1));
  const auto reader = stub_->Generate(&context, request_);
  inference::v1::GenerateResponse event;
  while (reader->Read(&event)) {
  }
  EXPECT_EQ(reader->Finish().error_code(), grpc::StatusCode::DEADLINE_EXCEEDED);
  EXPECT_LT(steady_clock::now() - start, std::chrono::seconds(10));
  EXPECT_TRUE(LanesAre(0));
  mesh_->process("expert-1").Signal(SIGCONT);
}

TEST_F(DeadlineTest, ACallerWhoHangsUpFreesTheLaneAtOnce) {
  mesh_->process("expert-1").Signal(SIGSTOP);
  {
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + std::chrono::minutes(5));
    const auto reader = stub_->Generate(&context, request_);
    ASSERT_TRUE(LanesAre(1));
    context.TryCancel();
    inference::v1::GenerateResponse event;
    while (reader->Read(&event)) {
    }
    EXPECT_EQ(reader->Finish().error_code(), grpc::StatusCode::CANCELLED);
  }
  const auto start = steady_clock::now();
  EXPECT_TRUE(LanesAre(0));
  EXPECT_LT(steady_clock::now() - start, std::chrono::seconds(20));
  // The worker goes on, and so does the next answer.
  mesh_->process("expert-1").Signal(SIGCONT);
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::minutes(1));
  request_.set_max_tokens(4);
  const auto reader = stub_->Generate(&context, request_);
  inference::v1::GenerateResponse event;
  while (reader->Read(&event)) {
  }
  EXPECT_TRUE(reader->Finish().ok());
}

}  // namespace
}  // namespace expertmesh::test_support

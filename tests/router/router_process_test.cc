#include "router/router_process.h"

#include <gmock/gmock.h>
#include <google/protobuf/struct.pb.h>
#include <google/protobuf/util/json_util.h>
#include <gtest/gtest.h>

#include <csignal>
#include <map>

#include "tests/router/test_member.h"
#include "tests/services/lifecycle/http_client.h"
#include "tests/support/child_process.h"
#include "tests/support/temp_dir.h"

namespace expertmesh::router {
namespace {

using google::protobuf::Struct;
using google::protobuf::Value;
using google::protobuf::util::JsonStringToMessage;
using lifecycle::Ask;
using lifecycle::BodyOf;
using testing::HasSubstr;

Struct Parse(const std::string& text) {
  Struct parsed;
  EXPECT_TRUE(JsonStringToMessage(text, &parsed).ok()) << text;
  return parsed;
}

std::string Text(const Struct& object, const std::string& key) {
  const auto it = object.fields().find(key);
  return it == object.fields().end() ? "" : it->second.string_value();
}

class RouterProcessTest : public testing::Test {
 protected:
  RouterProcessTest()
      : process_(*lifecycle::Process::Start({.role = "router", .log_level = "off"}, &metrics_)),
        router_(*RouterProcess::Start("127.0.0.1:0", *process_, metrics_)) {}

  Struct Status() { return Parse(BodyOf(Ask(process_->admin_address(), "GET", "/statusz"))); }
  /// /statusz.view, read back as the message that it shows.
  v1::View ShownView() {
    std::string text;
    v1::View view;
    EXPECT_TRUE(
        google::protobuf::util::MessageToJsonString(Status().fields().at("view"), &text).ok());
    EXPECT_TRUE(JsonStringToMessage(text, &view).ok()) << text;
    return view;
  }
  /// The entry of /statusz.peers with that name.
  Struct Peer(const std::string& name) {
    const Struct status = Status();
    for (const Value& peer : status.fields().at("peers").list_value().values()) {
      if (Text(peer.struct_value(), "name") == name) return peer.struct_value();
    }
    return {};
  }

  telemetry::Metrics metrics_{"router"};
  std::unique_ptr<lifecycle::Process> process_;
  std::unique_ptr<RouterProcess> router_;
};

TEST_F(RouterProcessTest, ReadyWithoutAnybody) {
  EXPECT_TRUE(process_->ready());
  const std::string page = metrics_.Serialize();
  EXPECT_THAT(page, HasSubstr("expertmesh_router_leader 1\n"));
  EXPECT_THAT(page, HasSubstr("expertmesh_router_registered_workers{role=\"expert-worker\","
                              "state=\"ready\"} 0\n"));
  EXPECT_EQ(ShownView().members_size(), 0);
  EXPECT_EQ(ShownView().router_incarnation(), process_->incarnation());
}

TEST_F(RouterProcessTest, ShowsTheMesh) {
  TestMember attention(router_->address(), AttentionHello("a0"));
  TestMember low(router_->address(), ExpertHello("e0", 0, 16));
  v1::Hello stray = ExpertHello("e9", 16, 32);
  stray.mutable_model()->set_revision("rev-b");
  TestMember other(router_->address(), stray);
  attention.ViewWith([](const v1::View& v) {
    return v.members_size() == 3 && v.members(1).report().ready() && v.members(2).report().ready();
  });
  EXPECT_EQ(ShownView().members_size(), 3);
  ASSERT_EQ(ShownView().missing_experts_size(), 1);
  EXPECT_EQ(ShownView().missing_experts(0).begin(), 16u);
  const Struct left_out = Status().fields().at("left_out").struct_value();
  EXPECT_EQ(left_out.fields_size(), 1);
  EXPECT_THAT(Text(left_out, "e9"), HasSubstr("rev-b"));
  EXPECT_EQ(Text(Peer("e0"), "state"), "up");
  EXPECT_THAT(metrics_.Serialize(), HasSubstr("expertmesh_router_missing_experts 16\n"));

  TestMember high(router_->address(), ExpertHello("e1", 16, 32));
  attention.ViewWith([](const v1::View& v) { return v.has_placement(); });
  const v1::Placement placement = ShownView().placement();
  EXPECT_EQ(placement.epoch().number(), 1u);
  ASSERT_EQ(placement.pools_size(), 2);
  EXPECT_THAT(placement.pools(0).replicas(), testing::ElementsAre("e0"));
  const std::string page = metrics_.Serialize();
  EXPECT_THAT(page, HasSubstr("expertmesh_router_placement_epoch 1\n"));
  EXPECT_THAT(page, HasSubstr("expertmesh_router_missing_experts 0\n"));
  EXPECT_THAT(page, HasSubstr("expertmesh_router_registered_workers{role=\"expert-worker\","
                              "state=\"ready\"} 3\n"));

  low.Break();
  attention.ViewWith([](const v1::View& v) { return v.missing_experts_size() > 0; });
  EXPECT_EQ(Text(Peer("e0"), "state"), "down");
  EXPECT_FALSE(Text(Peer("e0"), "reason").empty());
  EXPECT_THAT(metrics_.Serialize(),
              HasSubstr("expertmesh_router_peer_up{peer=\"e0\",role=\"expert-worker\"} 0\n"));
}

// The binary: flags, announce file, and a stop that does not wait for the members.
TEST(RouterBinaryTest, StopsWithOpenStreams) {
  const test_support::TempDir dir;
  test_support::ChildProcess router(
      {"expertmesh-router", "--name", "r0", "--announce-file", dir / "router.json"}, dir / "log");
  const auto announced =
      test_support::WaitForFile(dir / "router.json", std::chrono::milliseconds(20'000));
  ASSERT_TRUE(announced) << router.Log();
  const Struct said = Parse(*announced);
  EXPECT_EQ(Text(said, "role"), "router");
  TestMember member(Text(said, "grpc_address"), AttentionHello("a0"));
  EXPECT_EQ(member.NextView().members_size(), 1);
  router.Signal(SIGTERM);
  EXPECT_FALSE(member.End().ok());
  EXPECT_EQ(router.Wait(std::chrono::milliseconds(5'000)), 0) << router.Log();
}

TEST(RouterBinaryTest, ATakenAddressIsOneLineAndAnExitCode) {
  const test_support::TempDir dir;
  test_support::ChildProcess router({"expertmesh-router", "--listen", "256.0.0.1:1"}, dir / "log");
  EXPECT_EQ(router.Wait(std::chrono::milliseconds(20'000)), 1);
  EXPECT_THAT(router.Log(), HasSubstr("256.0.0.1:1"));
}

}  // namespace
}  // namespace expertmesh::router

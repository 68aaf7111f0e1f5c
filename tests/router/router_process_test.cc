#include "router/router_process.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <boost/json.hpp>
#include <csignal>
#include <map>

#include "tests/router/test_member.h"
#include "tests/services/lifecycle/http_client.h"
#include "tests/support/child_process.h"
#include "tests/support/temp_dir.h"

namespace expertmesh::router {
namespace {

namespace json = boost::json;
using lifecycle::Ask;
using lifecycle::BodyOf;
using testing::HasSubstr;

class RouterProcessTest : public testing::Test {
 protected:
  RouterProcessTest()
      : process_(*lifecycle::Process::Start({.role = "router", .log_level = "off"}, &metrics_)),
        router_(*RouterProcess::Start("127.0.0.1:0", *process_, metrics_)) {}

  json::object Status() {
    return json::parse(BodyOf(Ask(process_->admin_address(), "GET", "/statusz"))).as_object();
  }
  /// The entry of /statusz.peers with that name.
  json::object Peer(const std::string& name) {
    for (const json::value& peer : Status().at("peers").as_array()) {
      if (std::string(peer.at("name").as_string()) == name) return peer.as_object();
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
  EXPECT_TRUE(Status().at("view").at("members").as_array().empty());
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
  json::object status = Status();
  EXPECT_EQ(status.at("view").at("members").as_array().size(), 3u);
  EXPECT_EQ(status.at("view").at("missing_experts").at(0).at("begin"), 16);
  EXPECT_THAT(std::string(status.at("left_out").at("e9").as_string()), HasSubstr("rev-b"));
  EXPECT_EQ(Peer("e0").at("state"), "up");
  EXPECT_THAT(metrics_.Serialize(), HasSubstr("expertmesh_router_missing_experts 16\n"));

  TestMember high(router_->address(), ExpertHello("e1", 16, 32));
  attention.ViewWith([](const v1::View& v) { return v.has_placement(); });
  status = Status();
  const json::value& placement = status.at("view").at("placement");
  EXPECT_EQ(placement.at("epoch").at("number"), "1");
  EXPECT_EQ(placement.at("pools").at(0).at("replicas").at(0), "e0");
  const std::string page = metrics_.Serialize();
  EXPECT_THAT(page, HasSubstr("expertmesh_router_placement_epoch 1\n"));
  EXPECT_THAT(page, HasSubstr("expertmesh_router_missing_experts 0\n"));
  EXPECT_THAT(page, HasSubstr("expertmesh_router_registered_workers{role=\"expert-worker\","
                              "state=\"ready\"} 3\n"));

  low.Break();
  attention.ViewWith([](const v1::View& v) { return v.missing_experts_size() > 0; });
  EXPECT_EQ(Peer("e0").at("state"), "down");
  EXPECT_FALSE(Peer("e0").at("reason").as_string().empty());
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
  const json::object said = json::parse(*announced).as_object();
  EXPECT_EQ(said.at("role"), "router");
  TestMember member(std::string(said.at("grpc_address").as_string()), AttentionHello("a0"));
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

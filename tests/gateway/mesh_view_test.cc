#include "gateway/mesh_view.h"

#include <boost/json.hpp>

#include "services/base/status.h"
#include "tests/gateway/gateway_fixture.h"

namespace expertmesh::gateway {
namespace {

namespace json = boost::json;
using base::Reason;
using testing::HasSubstr;

class MeshViewTest : public GatewayTest {
 protected:
  Reason PickReason() { return base::ReasonOf(mesh_->Pick().status()); }

  // "up", or "down: why"; "" if not listed.
  std::string PeerState(const std::string& role, const std::string& name) const {
    const std::string page =
        lifecycle::BodyOf(lifecycle::Ask(process_->admin_address(), "GET", "/statusz"));
    const json::value status = json::parse(page);
    for (const json::value& peer : status.at("peers").as_array()) {
      if (peer.at("role") != json::value(role) || peer.at("name") != json::value(name)) continue;
      const std::string state(peer.at("state").as_string().c_str());
      return state == "up" ? state : state + ": " + std::string(peer.at("reason").as_string());
    }
    return "";
  }
  static void AddMember(router::v1::View& view, common::v1::Role role, const std::string& name) {
    auto* hello = view.add_members()->mutable_hello();
    hello->set_role(role);
    hello->set_name(name);
    hello->set_address("127.0.0.1:1");
  }
};

TEST_F(MeshViewTest, ReadyAfterAPlacementAndAWorkerWereSeen) {
  EXPECT_EQ(PickReason(), Reason::kNotReady);
  mesh_->OnView(View([](router::v1::View& view) {
    view.clear_placement();
    view.add_missing_experts()->set_end(8);
  }));
  EXPECT_FALSE(process_->ready());
  EXPECT_THAT(process_->not_ready_reason(), HasSubstr("0-7"));
  mesh_->OnView(View([](router::v1::View& view) { view.clear_members(); }));
  EXPECT_TRUE(process_->ready());  // a ready worker was there in the first view
  EXPECT_EQ(PickReason(), Reason::kNoAttentionWorker);
  mesh_->OnView(View());
  EXPECT_EQ(mesh_->Pick().value().worker, "attention-0");
}

TEST_F(MeshViewTest, NotReadyWithoutAWorkerOfTheModel) {
  mesh_->OnView(View([](router::v1::View& view) {
    view.mutable_members(0)->mutable_hello()->mutable_model()->set_model("other");
  }));
  EXPECT_FALSE(process_->ready());
  EXPECT_EQ(PickReason(), Reason::kNotReady);
}

TEST_F(MeshViewTest, RequestsSinceTheViewCountAsLoad) {
  const auto two = [](router::v1::View& view) {
    *view.add_members() = view.members(0);
    view.mutable_members(1)->mutable_hello()->set_name("attention-1");
    view.mutable_members(1)->mutable_report()->set_load(1);
  };
  mesh_->OnView(View(two));
  std::string order;
  for (int i = 0; i < 4; ++i) order += mesh_->Pick().value().worker.back();
  EXPECT_EQ(order, "0010");
}

TEST_F(MeshViewTest, PeersComeAndGoInTheStatusPage) {
  mesh_->OnRouter("r:1", true, "");
  mesh_->OnView(View([](router::v1::View& view) {
    AddMember(view, common::v1::ROLE_EXPERT_WORKER, "expert-0");
    AddMember(view, common::v1::ROLE_ENGRAM_STORE, "engram-0");
    AddMember(view, common::v1::ROLE_GATEWAY, "gateway-0");
  }));
  EXPECT_EQ(PeerState("router", "r:1"), "up");
  EXPECT_EQ(PeerState("attention-worker", "attention-0"), "up");
  EXPECT_EQ(PeerState("expert-worker", "expert-0"), "up");
  EXPECT_EQ(PeerState("engram-store", "engram-0"), "up");
  EXPECT_EQ(PeerState("gateway", "gateway-0"), "");

  mesh_->OnView(View());
  EXPECT_EQ(PeerState("expert-worker", "expert-0"), "down: left the router's view");
  EXPECT_EQ(PeerState("attention-worker", "attention-0"), "up");
  EXPECT_EQ(Metric(R"(peer_up{peer="expert-0",role="expert-worker"})"), 0);
  EXPECT_EQ(Metric(R"(peer_up{peer="attention-0",role="attention-worker"})"), 1);

  mesh_->OnRouter("r:1", false, "connection refused");
  EXPECT_EQ(PeerState("router", "r:1"), "down: connection refused");
  EXPECT_TRUE(mesh_->Pick().ok());  // the last view goes on without a router
}

TEST_F(MeshViewTest, ARouterThatStartsAnewDoesNotEmptyTheView) {
  mesh_->OnView(View());
  mesh_->OnView(router::v1::View());
  EXPECT_TRUE(mesh_->Pick().ok());
  EXPECT_EQ(PeerState("attention-worker", "attention-0"), "up");
}

TEST_F(MeshViewTest, AWorkerThatLeavesEndsItsCalls) {
  const auto of = [this](uint64_t router, uint64_t worker) {
    return View([=](router::v1::View& view) {
      view.set_router_incarnation(router);
      view.mutable_members(0)->mutable_hello()->set_incarnation(worker);
      if (worker == 0) view.clear_members();
    });
  };
  absl::Status end;
  std::shared_ptr<WorkerCalls> calls;  // as a call that runs has it
  const auto begin = [&] {
    end = absl::OkStatus();
    calls = mesh_->Pick().value().calls;
    return calls->Add(&end, [&](const absl::Status& why) { end = why; });
  };
  mesh_->OnView(of(1, 7));
  ASSERT_TRUE(begin().ok());
  mesh_->OnView(of(1, 7));
  EXPECT_TRUE(end.ok());
  mesh_->OnView(of(2, 0));  // a new router, which does not know the worker yet
  EXPECT_TRUE(end.ok());
  mesh_->OnView(of(2, 7));
  EXPECT_TRUE(end.ok());
  mesh_->OnView(of(2, 0));  // now it does, and lost it
  EXPECT_EQ(base::ReasonOf(end), Reason::kPeerLost);

  mesh_->OnView(of(2, 8));
  ASSERT_TRUE(begin().ok());
  mesh_->OnView(of(3, 9));  // another start of the same worker: the old one is no more
  EXPECT_EQ(base::ReasonOf(end), Reason::kPeerLost);

  const auto late = mesh_->Pick().value().calls;
  mesh_->OnView(of(3, 0));
  EXPECT_EQ(base::ReasonOf(late->Add(&late, [](const absl::Status&) {})), Reason::kPeerLost);
}

TEST_F(MeshViewTest, ADeadWorkerIsNoticedWithoutARouter) {
  mesh_->OnView(View());
  const auto channel = mesh_->Pick().value().channel;
  ASSERT_TRUE(
      channel->WaitForConnected(std::chrono::system_clock::now() + std::chrono::minutes(1)));
  worker_.Die();
  grpc_connectivity_state state = channel->GetState(true);
  while (state != GRPC_CHANNEL_TRANSIENT_FAILURE) {
    ASSERT_TRUE(channel->WaitForStateChange(
        state, std::chrono::system_clock::now() + std::chrono::minutes(1)));
    state = channel->GetState(true);
  }
  mesh_->CheckConnections();
  EXPECT_EQ(PeerState("attention-worker", "attention-0"), "down: cannot be reached");
  EXPECT_EQ(PickReason(), Reason::kNoAttentionWorker);
}

TEST_F(MeshViewTest, LongGonePeersAreForgotten) {
  for (int i = 0; i < 300; ++i) {
    mesh_->OnView(View([&](router::v1::View& view) {
      AddMember(view, common::v1::ROLE_EXPERT_WORKER, "expert-" + std::to_string(i));
    }));
  }
  EXPECT_EQ(PeerState("expert-worker", "expert-0"), "");
  EXPECT_EQ(PeerState("expert-worker", "expert-298"), "down: left the router's view");
  EXPECT_EQ(PeerState("expert-worker", "expert-299"), "up");
}

}  // namespace
}  // namespace expertmesh::gateway

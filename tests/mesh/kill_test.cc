// Killing any process: the others show it within 2 s, a request in flight ends with a named reason
// (or goes on, where the process is not on its path), the gateway stays ready and says why it
// refuses.
#include <gtest/gtest.h>
#include <signal.h>

#include <chrono>

#include "services/base/status.h"
#include "services/rpc/channel.h"
#include "services/rpc/status.h"
#include "tests/support/http_client.h"
#include "tests/support/local_mesh.h"
#include "tests/support/tiny_model.h"

namespace expertmesh::test_support {
namespace {

using base::Reason;
using std::chrono::steady_clock;

constexpr std::chrono::seconds kSeen(2);

// Asks again and again, without a pause, until the page says it or the time is over.
bool SaysWithin(const std::string& address, const std::string& path, const std::string& text,
                steady_clock::time_point deadline) {
  do {
    if (HttpGet(address, path).find(text) != std::string::npos) return true;
  } while (steady_clock::now() < deadline);
  return false;
}

class KillTest : public testing::Test {
 protected:
  KillTest() {
    MeshSpec spec;
    spec.model = TinyModel();
    spec.slices = {"0-15", "16-31"};
    spec.gateway = true;
    spec.engram = true;
    mesh_ = std::make_unique<LocalMesh>(spec);
  }
  void SetUp() override { ASSERT_TRUE(mesh_->WaitReady()); }

  // Begins a long answer through the gateway's gRPC door, stops `victim` once tokens flow, then
  // kills it.
  absl::Status KillDuringAnswer(const std::string& victim) {
    const auto stub =
        inference::v1::InferenceService::NewStub(rpc::MakeChannel(mesh_->Address("gateway")));
    inference::v1::GenerateRequest request;
    request.add_segments()->mutable_text()->set_text("Explain");
    request.set_max_tokens(450);
    request.mutable_debug()->set_ignore_eos(true);
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + kPatience);
    const auto reader = stub->Generate(&context, request);
    inference::v1::GenerateResponse event;
    bool killed = false;
    tokens_ = 0;
    while (reader->Read(&event)) {
      tokens_ += event.has_token() ? 1 : 0;
      if (killed || !event.has_token()) continue;
      Kill(victim);
      killed = true;
    }
    EXPECT_TRUE(killed);
    return rpc::FromGrpcStatus(reader->Finish());
  }

  void Kill(const std::string& victim) {
    mesh_->process(victim).Signal(SIGSTOP);  // nothing of it moves on meanwhile
    killed_at_ = steady_clock::now();
    mesh_->process(victim).Signal(SIGKILL);
  }

  // Each of `watchers` shows `peer` as down in /statusz and in its gauge.
  void ExpectSeen(const std::string& peer, const std::vector<std::string>& watchers) {
    for (const std::string& watcher : watchers) {
      const std::string admin = mesh_->AdminAddress(watcher);
      EXPECT_TRUE(SaysWithin(admin, "/statusz", DownText(peer), killed_at_ + kSeen))
          << watcher << ": " << HttpGet(admin, "/statusz");
      EXPECT_TRUE(
          SaysWithin(admin, "/metrics", "peer_up{peer=\"" + peer + "\"", killed_at_ + kSeen));
      const std::string metrics = HttpGet(admin, "/metrics");
      const size_t at = metrics.find("peer_up{peer=\"" + peer + "\"");
      ASSERT_NE(at, std::string::npos) << watcher;
      EXPECT_EQ(metrics.substr(metrics.find("} ", at) + 2, 1), "0") << watcher;
    }
  }
  std::string DownText(const std::string& peer) const {
    return "\"name\":\"" + peer + "\",\"address\":\"" +
           (peer.find(':') == std::string::npos ? mesh_->Address(peer) : peer) +
           "\",\"state\":\"down\"";
  }

  HttpResponse Chat() {
    return HttpPost(
        mesh_->HttpAddress(), "/v1/chat/completions",
        R"({"model":"tiny-v3","max_tokens":4,"messages":[{"role":"user","content":"Hi"}]})");
  }
  void ExpectRefusal(const std::string& code) {
    EXPECT_NE(HttpGet(mesh_->AdminAddress("gateway"), "/readyz").find(" 200 "), std::string::npos);
    const HttpResponse refused = Chat();
    EXPECT_EQ(refused.status, 503) << refused.body;
    EXPECT_NE(refused.body.find("\"code\":\"" + code + "\""), std::string::npos) << refused.body;
  }

  std::unique_ptr<LocalMesh> mesh_;
  steady_clock::time_point killed_at_;
  int tokens_ = 0;
};

TEST_F(KillTest, ExpertWorker) {
  EXPECT_EQ(base::ReasonOf(KillDuringAnswer("expert-1")), Reason::kExpertsUnavailable);
  ExpectSeen("expert-1", {"router", "attention", "gateway"});
  ExpectRefusal("experts_unavailable");
}

TEST_F(KillTest, AttentionWorker) {
  EXPECT_EQ(base::ReasonOf(KillDuringAnswer("attention")), Reason::kPeerLost);
  ExpectSeen("attention", {"router", "gateway"});
  ExpectRefusal("no_attention_worker");
}

TEST_F(KillTest, RouterIsNotOnTheTokenPath) {
  EXPECT_TRUE(KillDuringAnswer("router").ok());
  EXPECT_EQ(tokens_, 450);
  ExpectSeen(mesh_->Address("router"), {"attention", "expert-0", "expert-1", "gateway", "engram"});
  EXPECT_EQ(Chat().status, 200);
}

TEST_F(KillTest, EngramStoreOfAModelWithoutMemory) {
  EXPECT_TRUE(KillDuringAnswer("engram").ok());
  ExpectSeen("engram", {"router", "attention", "gateway"});
  EXPECT_EQ(Chat().status, 200);
}

TEST_F(KillTest, GatewayEndsItsCallersAndItsLanes) {
  EXPECT_EQ(base::ReasonOf(KillDuringAnswer("gateway")), Reason::kPeerLost);
  ExpectSeen("gateway", {"router"});
  // The attention worker notices the cancelled call and frees the lane.
  EXPECT_TRUE(SaysWithin(mesh_->AdminAddress("attention"), "/statusz", "\"running\":0",
                         steady_clock::now() + kSeen));
}

TEST_F(KillTest, ARestartedExpertWorkerIsUsedAgain) {
  Kill("expert-1");
  ASSERT_TRUE(mesh_->WaitView([](const auto& view) { return view.missing_experts_size() > 0; }));
  mesh_->Restart("expert-1");
  ASSERT_TRUE(mesh_->WaitReady());
  const auto deadline = steady_clock::now() + kPatience;
  int status = 0;
  while (status != 200 && steady_clock::now() < deadline) status = Chat().status;
  EXPECT_EQ(status, 200);
}

}  // namespace
}  // namespace expertmesh::test_support

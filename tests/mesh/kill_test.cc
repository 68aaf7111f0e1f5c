// Killing any process: the others show it within 2 s, a request in flight ends with a named reason
// (or goes on, where the process is not on its path), the gateway stays ready and says why it
// refuses.
#include <gtest/gtest.h>
#include <signal.h>

#include <atomic>
#include <chrono>
#include <functional>
#include <future>
#include <set>

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
// From the loss of a process to the end of the last request that needs it. The mesh waits for a
// replica for a second, and notices a process that stands still after 1.5 s; the rest is for a
// machine at work.
constexpr std::chrono::milliseconds kEnded(3000);
constexpr std::chrono::milliseconds kEndedStandsStill(4000);

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
  // One that stands still would not end with the mesh.
  void TearDown() override {
    for (const std::string& victim : victims_) mesh_->process(victim).Signal(SIGKILL);
  }

  // Begins a long answer through the gateway's gRPC door and kills `victim` once tokens flow. With
  // SIGSTOP it only stands still, and with every connection open. `then` follows at once.
  absl::Status KillDuringAnswer(const std::string& victim, int signal = SIGKILL,
                                const std::function<void()>& then = nullptr) {
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
      Kill(victim, signal);
      killed = true;
      if (then) then();
    }
    EXPECT_TRUE(killed);
    ended_after_ = steady_clock::now() - killed_at_.load();
    return rpc::FromGrpcStatus(reader->Finish());
  }

  void Kill(const std::string& victim, int signal = SIGKILL) {
    victims_.insert(victim);
    mesh_->process(victim).Signal(SIGSTOP);  // nothing of it moves on meanwhile
    killed_at_ = steady_clock::now();
    killed_at_.notify_all();
    if (signal != SIGSTOP) mesh_->process(victim).Signal(signal);
  }

  // A long answer is under way and others come in all the time while `victim` is lost, and more
  // right behind the loss. Every one of them ends within `bound` of the loss, with one of `codes`.
  void ExpectRacersEnd(const std::string& victim, int signal, Reason reason,
                       const std::set<std::string>& codes, std::chrono::milliseconds bound) {
    std::atomic<bool> stop{false};
    const auto race = [&] {
      while (!stop) {
        const HttpResponse answer = Chat();
        if (answer.status == 200) continue;
        const auto now = steady_clock::now();
        EXPECT_EQ(answer.status, 503) << answer.body;
        EXPECT_TRUE(codes.contains(CodeOf(answer.body))) << answer.body;
        EXPECT_LT(now - killed_at_.load(), bound) << answer.body;
        break;
      }
    };
    std::vector<std::future<void>> racers;
    for (int i = 0; i < 4; ++i) racers.push_back(std::async(std::launch::async, race));
    for (int i = 0; i < 4; ++i) {
      racers.push_back(std::async(std::launch::async, [&] {
        killed_at_.wait(steady_clock::time_point());
        race();
      }));
    }
    EXPECT_EQ(base::ReasonOf(KillDuringAnswer(victim, signal)), reason);
    EXPECT_LT(ended_after_, bound);
    if (killed_at_.load() == steady_clock::time_point()) Kill(victim);  // so that all of them end
    for (auto& racer : racers) {
      EXPECT_EQ(racer.wait_until(killed_at_.load() + kPatience), std::future_status::ready);
    }
    stop = true;
  }
  static std::string CodeOf(const std::string& body) {
    const std::string mark = "\"code\":\"";
    const size_t at = body.find(mark);
    if (at == std::string::npos) return "";
    const size_t begin = at + mark.size();
    return body.substr(begin, body.find('"', begin) - begin);
  }

  // Each of `watchers` shows `peer` as down in /statusz and in its gauge.
  void ExpectSeen(const std::string& peer, const std::vector<std::string>& watchers) {
    for (const std::string& watcher : watchers) {
      const std::string admin = mesh_->AdminAddress(watcher);
      EXPECT_TRUE(SaysWithin(admin, "/statusz", DownText(peer), killed_at_.load() + kSeen))
          << watcher << ": " << HttpGet(admin, "/statusz");
      EXPECT_TRUE(SaysWithin(admin, "/metrics", "peer_up{peer=\"" + peer + "\"",
                             killed_at_.load() + kSeen));
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
  std::set<std::string> victims_;
  std::atomic<steady_clock::time_point> killed_at_{};
  steady_clock::duration ended_after_{};
  int tokens_ = 0;
};

TEST_F(KillTest, ExpertWorker) {
  EXPECT_EQ(base::ReasonOf(KillDuringAnswer("expert-1")), Reason::kExpertsUnavailable);
  EXPECT_LT(ended_after_, kEnded);
  ExpectSeen("expert-1", {"router", "attention", "gateway"});
  ExpectRefusal("experts_unavailable");
}

TEST_F(KillTest, AttentionWorker) {
  EXPECT_EQ(base::ReasonOf(KillDuringAnswer("attention")), Reason::kPeerLost);
  EXPECT_LT(ended_after_, kEnded);
  ExpectSeen("attention", {"router", "gateway"});
  ExpectRefusal("no_attention_worker");
}

TEST_F(KillTest, RequestsThatRaceWithTheDeathOfAnExpertWorker) {
  ExpectRacersEnd("expert-1", SIGKILL, Reason::kExpertsUnavailable, {"experts_unavailable"},
                  kEnded);
}

// Then nobody turns new requests away at the door: all of them come to wait for the experts.
TEST_F(KillTest, RequestsBehindTheDeathOfAnExpertWorkerWithoutARouter) {
  victims_.insert("router");
  mesh_->process("router").Signal(SIGSTOP);
  ExpectRacersEnd("expert-1", SIGKILL, Reason::kExpertsUnavailable, {"experts_unavailable"},
                  kEnded);
}

TEST_F(KillTest, AnExpertWorkerThatStandsStill) {
  ExpectRacersEnd("expert-1", SIGSTOP, Reason::kExpertsUnavailable, {"experts_unavailable"},
                  kEndedStandsStill);
}

TEST_F(KillTest, RequestsThatRaceWithTheDeathOfAnAttentionWorker) {
  ExpectRacersEnd("attention", SIGKILL, Reason::kPeerLost, {"peer_lost", "no_attention_worker"},
                  kEnded);
}

TEST_F(KillTest, AnAttentionWorkerThatStandsStill) {
  ExpectRacersEnd("attention", SIGSTOP, Reason::kPeerLost, {"peer_lost", "no_attention_worker"},
                  kEnded);
  ExpectRefusal("no_attention_worker");
}

TEST_F(KillTest, RouterIsNotOnTheTokenPath) {
  EXPECT_TRUE(KillDuringAnswer("router").ok());
  EXPECT_EQ(tokens_, 450);
  ExpectSeen(mesh_->Address("router"), {"attention", "expert-0", "expert-1", "gateway", "engram"});
  EXPECT_EQ(Chat().status, 200);
}

// Its first view has no placement, since the workers come to it one by one.
TEST_F(KillTest, ARouterThatComesBackDisturbsNoAnswer) {
  for (int i = 0; i < 3; ++i) {
    const absl::Status status =
        KillDuringAnswer("router", SIGKILL, [&] { mesh_->Restart("router"); });
    EXPECT_TRUE(status.ok()) << status;
    EXPECT_EQ(tokens_, 450);
    ASSERT_TRUE(mesh_->WaitReady());
  }
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

#include "services/rpc/router_client.h"

#include <gtest/gtest.h>

#include <atomic>
#include <condition_variable>
#include <future>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "tests/services/rpc/fake_router.h"
#include "tests/services/rpc/temp_folder.h"

namespace expertmesh::rpc {
namespace {

// What a RouterClient told its owner, in order: "up A", "down A", "view 7".
class Journal {
 public:
  RouterClient::OnView OnView() {
    return [this](const router::v1::View& view) {
      Add("view " + std::to_string(view.sequence()), "");
    };
  }
  RouterClient::OnRouter OnRouter() {
    return [this](const std::string& address, bool up, const std::string& reason) {
      Add((up ? "up " : "down ") + address.substr(address.rfind('/') + 1), reason);
    };
  }
  // Waits for the entry at or after `from`; returns the place behind it.
  size_t Await(const std::string& entry, size_t from = 0) {
    std::unique_lock lock(mutex_);
    size_t at = 0;
    EXPECT_TRUE(changed_.wait_for(lock, kWait, [&] {
      for (at = from; at < entries_.size(); ++at) {
        if (entries_[at] == entry) return true;
      }
      return false;
    })) << entry;
    return at + 1;
  }
  std::vector<std::string> entries() {
    std::lock_guard lock(mutex_);
    return entries_;
  }
  std::string last_reason() {
    std::lock_guard lock(mutex_);
    return reasons_.empty() ? "" : reasons_.back();
  }

 private:
  void Add(std::string entry, std::string reason) {
    std::lock_guard lock(mutex_);
    entries_.push_back(std::move(entry));
    reasons_.push_back(std::move(reason));
    changed_.notify_all();
  }
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<std::string> entries_;  // guarded by mutex_
  std::vector<std::string> reasons_;  // guarded by mutex_
};

class RouterClientTest : public testing::Test {
 protected:
  std::unique_ptr<RouterClient> Connect(const std::vector<std::string>& names) {
    std::vector<std::string> addresses;
    for (const std::string& name : names) addresses.push_back(folder_.address(name));
    return std::make_unique<RouterClient>(addresses, MakeHello(), journal_.OnView(),
                                          journal_.OnRouter());
  }

  TempFolder folder_;
  Journal journal_;
};

TEST_F(RouterClientTest, GreetsThenReports) {
  FakeRouter router;
  router.Start(folder_.address("a"));
  const auto client = Connect({"a"});
  const auto hello = router.Hellos(1).front();
  EXPECT_EQ(hello.name(), "expert-1");
  EXPECT_EQ(hello.incarnation(), 42u);
  EXPECT_FALSE(hello.has_last_epoch() && hello.last_epoch().term() != 0);
  EXPECT_TRUE(router.SawReport(0, [](const auto& r) { return r.reason() == "starting"; }));
  client->Report(MakeReport(true, 7));
  EXPECT_TRUE(router.SawReport(0, [](const auto& r) { return r.ready() && r.load() == 7; }));
}

TEST_F(RouterClientTest, RepeatsTheReport) {
  FakeRouter router;
  router.Start(folder_.address("a"));
  const auto client = Connect({"a"});
  client->Report(MakeReport(true, 1));
  ASSERT_TRUE(router.SawReport(0, [](const auto& r) { return r.ready(); }));
  size_t seen = router.report_count();
  for (int repeat = 0; repeat < 2; ++repeat) {
    ASSERT_TRUE(router.SawReport(seen, [](const auto& r) { return r.ready() && r.load() == 1; }));
    seen = router.report_count();
  }
}

TEST_F(RouterClientTest, DeliversViewsInOrderAfterUp) {
  FakeRouter router;
  router.Greet(MakeView(1));
  router.Start(folder_.address("a"));
  const auto client = Connect({"a"});
  journal_.Await("view 1");
  for (uint64_t i = 2; i <= 50; ++i) router.Send(MakeView(i));
  journal_.Await("view 50");
  const auto entries = journal_.entries();
  EXPECT_EQ(entries.front(), "up a");
  int last = 0;
  for (size_t i = 1; i < entries.size(); ++i) {
    const int sequence = std::stoi(entries[i].substr(5));
    EXPECT_GT(sequence, last);
    last = sequence;
  }
}

TEST_F(RouterClientTest, SurvivesARouterThatDiesAndComesBack) {
  auto router = std::make_unique<FakeRouter>();
  router->Greet(MakeView(1, 3, 4));
  router->Start(folder_.address("a"));
  const auto client = Connect({"a"});
  client->Report(MakeReport(true));
  size_t at = journal_.Await("view 1");
  for (int life = 0; life < 3; ++life) {
    router = nullptr;
    at = journal_.Await("down a", at);
    EXPECT_NE(journal_.last_reason(), "");
    router = std::make_unique<FakeRouter>();
    router->Greet(MakeView(2));
    router->Start(folder_.address("a"));
    at = journal_.Await("up a", at);
    at = journal_.Await("view 2", at);
    const auto hello = router->Hellos(1).front();
    EXPECT_EQ(hello.last_epoch().term(), 3u);
    EXPECT_EQ(hello.last_epoch().number(), 4u);
    EXPECT_TRUE(router->SawReport(0, [](const auto& r) { return r.ready(); }));
  }
}

TEST_F(RouterClientTest, WaitsForARouterThatIsNotThereYet) {
  const auto client = Connect({"a"});
  journal_.Await("down a");
  EXPECT_NE(journal_.last_reason(), "");
  FakeRouter router;
  router.Start(folder_.address("a"));
  journal_.Await("view 0", journal_.Await("up a"));
}

TEST_F(RouterClientTest, FollowsTheNewestOfTwoRouters) {
  FakeRouter old;
  old.Greet(MakeView(10, 1, 1));
  old.Start(folder_.address("old"));
  auto fresh = std::make_unique<FakeRouter>();
  fresh->Greet(MakeView(20, 2, 1));
  fresh->Start(folder_.address("new"));
  const auto client = Connect({"old", "new"});
  journal_.Await("up old");
  size_t at = journal_.Await("view 20");
  // Not followed: its epoch is older. The next one is.
  old.Send(MakeView(11, 1, 2));
  fresh->Send(MakeView(21, 2, 1));
  at = journal_.Await("view 21", at);
  fresh = nullptr;
  at = journal_.Await("down new", at);
  at = journal_.Await("view 11", at);
  old.Send(MakeView(12, 1, 3));
  journal_.Await("view 12", at);
}

TEST_F(RouterClientTest, RedialsARouterThatRefuses) {
  FakeRouter router;
  router.Refuse({grpc::StatusCode::INVALID_ARGUMENT, "the Hello needs a role"});
  router.Start(folder_.address("a"));
  const auto client = Connect({"a"});
  router.Hellos(3);
  client->Stop();
  // The same reason is told once.
  EXPECT_EQ(journal_.entries(), std::vector<std::string>{"down a"});
  EXPECT_EQ(journal_.last_reason(), "the Hello needs a role");
}

TEST_F(RouterClientTest, StopEndsWhateverGoesOn) {
  FakeRouter router;
  router.Start(folder_.address("a"));
  FakeRouter silent;
  silent.Greet(std::nullopt);
  silent.Start(folder_.address("silent"));
  const auto client = Connect({"a", "absent", "silent"});
  journal_.Await("view 0");
  journal_.Await("down absent");
  silent.Hellos(1);
  client->Stop();
  const size_t count = journal_.entries().size();
  client->Report(MakeReport(true));
  router.Send(MakeView(5));
  client->Stop();
  EXPECT_EQ(journal_.entries().size(), count);
  Connect({})->Stop();
  Connect({"absent"})->Stop();
}

TEST_F(RouterClientTest, ASlowCallbackDelaysNoReportAndStopWaitsForIt) {
  FakeRouter router;
  router.Start(folder_.address("a"));
  std::promise<void> entered;
  std::promise<void> leave;
  std::atomic<bool> left = false;
  RouterClient client(
      {folder_.address("a")}, MakeHello(),
      [&](const router::v1::View&) {
        entered.set_value();
        leave.get_future().wait();
        left = true;
      },
      nullptr);
  entered.get_future().wait();
  client.Report(MakeReport(true));
  EXPECT_TRUE(router.SawReport(0, [](const auto& r) { return r.ready(); }));
  auto stopped = std::async(std::launch::async, [&] {
    client.Stop();
    return left.load();
  });
  leave.set_value();
  EXPECT_TRUE(stopped.get());
}

TEST_F(RouterClientTest, ManyReportersAndADyingRouter) {
  FakeRouter router;
  router.Start(folder_.address("a"));
  const auto client = Connect({"a"});
  std::atomic<bool> stop = false;
  std::vector<std::thread> reporters;
  for (uint64_t i = 0; i < 3; ++i) {
    reporters.emplace_back([&, i] {
      for (uint64_t n = 0; !stop; ++n) client->Report(MakeReport(n % 2 == i % 2, n));
    });
  }
  size_t at = 0;
  for (int life = 0; life < 5; ++life) {
    at = journal_.Await("up a", at);
    const size_t seen = router.report_count();
    EXPECT_TRUE(router.SawReport(seen, [](const auto&) { return true; }));
    router.Stop();
    at = journal_.Await("down a", at);
    router.Start(folder_.address("a"));
  }
  stop = true;
  for (std::thread& reporter : reporters) reporter.join();
}

}  // namespace
}  // namespace expertmesh::rpc

#include "router/router_service.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <condition_variable>
#include <deque>

#include "services/base/status.h"
#include "services/rpc/router_client.h"
#include "services/rpc/server.h"
#include "tests/router/test_member.h"

namespace expertmesh::router {
namespace {

using base::Reason;
using std::chrono::seconds;

/// Stands still, so that no member expires on a busy machine.
class StoppedClock final : public base::Clock {
 public:
  base::Instant Now() const override { return {1'000'000}; }
};

class RouterServiceTest : public testing::Test {
 protected:
  RouterServiceTest() : RouterServiceTest(std::make_unique<StoppedClock>()) {}
  explicit RouterServiceTest(std::unique_ptr<base::Clock> clock)
      : clock_(std::move(clock)),
        service_(77, *clock_,
                 [this](const RouterService::Change& change) {
                   std::lock_guard lock(mutex_);
                   for (const Departure& d : change.departed) departed_.push_back(d);
                   changed_.notify_all();
                 }),
        server_(*rpc::Server::Start({}, {&service_})),
        stub_(v1::RouterService::NewStub(
            grpc::CreateChannel(server_->address(), grpc::InsecureChannelCredentials()))) {}

  ~RouterServiceTest() override { server_->Shutdown(std::chrono::milliseconds(0)); }

  /// The next member that left.
  Departure NextDeparture() {
    std::unique_lock lock(mutex_);
    if (!changed_.wait_for(lock, seconds(20), [this] { return !departed_.empty(); })) return {};
    Departure d = departed_.front();
    departed_.pop_front();
    return d;
  }
  v1::View View() {
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + seconds(20));
    v1::GetViewResponse response;
    EXPECT_TRUE(stub_->GetView(&context, {}, &response).ok());
    return response.view();
  }
  absl::StatusOr<v1::RouteResponse> Route(const v1::RouteRequest& request) {
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + seconds(20));
    v1::RouteResponse response;
    const grpc::Status status = stub_->Route(&context, request, &response);
    if (!status.ok()) return rpc::FromGrpcStatus(status);
    return response;
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Departure> departed_;  // guarded by mutex_
  const std::unique_ptr<base::Clock> clock_;
  RouterService service_;
  std::unique_ptr<rpc::Server> server_;
  std::unique_ptr<v1::RouterService::Stub> stub_;
};

class RouterServiceRealTimeTest : public RouterServiceTest {
 protected:
  RouterServiceRealTimeTest() : RouterServiceTest(std::make_unique<base::SteadyClock>()) {}
};

bool Placed(const v1::View& view) { return view.has_placement(); }

TEST_F(RouterServiceTest, AViewAnswersTheHelloAtOnce) {
  TestMember member(server_->address());
  member.Say(AttentionHello("a0"));
  const v1::View view = member.NextView();
  EXPECT_EQ(view.router_incarnation(), 77u);
  ASSERT_EQ(view.members_size(), 1);
  EXPECT_EQ(view.members(0).hello().name(), "a0");
  EXPECT_FALSE(view.members(0).report().ready());
  ASSERT_EQ(view.missing_experts_size(), 1);
  EXPECT_EQ(view.missing_experts(0).end(), 32u);
  member.Report(true);
  const v1::View next = member.NextView();
  EXPECT_GT(next.sequence(), view.sequence());
  EXPECT_TRUE(next.members(0).report().ready());
}

TEST_F(RouterServiceTest, PlacesAndSeesADeath) {
  TestMember attention(server_->address(), AttentionHello("a0"));
  TestMember low(server_->address(), ExpertHello("e0", 0, 16));
  TestMember high(server_->address(), ExpertHello("e1", 16, 32));
  v1::View view = attention.ViewWith(Placed);
  ASSERT_EQ(view.placement().pools_size(), 2);
  EXPECT_EQ(view.placement().pools(0).name(), "0-15");
  EXPECT_EQ(view.placement().pools(1).replicas(0), "e1");
  EXPECT_EQ(view.placement().epoch().term(), 1u);
  EXPECT_EQ(view.placement().epoch().number(), 1u);
  EXPECT_EQ(view.missing_experts_size(), 0);

  low.Break();
  view = attention.ViewWith([](const v1::View& v) { return v.missing_experts_size() > 0; });
  EXPECT_EQ(view.missing_experts(0).begin(), 0u);
  EXPECT_EQ(view.missing_experts(0).end(), 16u);
  EXPECT_EQ(view.placement().epoch().number(), 1u);
  EXPECT_EQ(view.placement().pools(0).replicas_size(), 0);
  const Departure gone = NextDeparture();
  EXPECT_EQ(gone.name, "e0");
  EXPECT_EQ(gone.role, Role::kExpertWorker);
}

TEST_F(RouterServiceTest, BadStreamsEndWithAReason) {
  {
    TestMember report_first(server_->address());
    report_first.Report(true);
    EXPECT_EQ(base::ReasonOf(report_first.End()), Reason::kInvalidArgument);
  }
  {
    TestMember bad(server_->address());
    v1::Hello hello = AttentionHello("a0");
    hello.clear_role();
    bad.Say(hello);
    EXPECT_EQ(base::ReasonOf(bad.End()), Reason::kInvalidArgument);
  }
  {
    TestMember empty(server_->address());
    empty.SayNothing();
    EXPECT_EQ(base::ReasonOf(empty.End()), Reason::kInvalidArgument);
  }
  {
    TestMember twice(server_->address(), AttentionHello("a0"));
    twice.Say(AttentionHello("a0"));
    EXPECT_EQ(base::ReasonOf(twice.End()), Reason::kInvalidArgument);
    EXPECT_EQ(NextDeparture().name, "a0");
  }
  EXPECT_EQ(View().members_size(), 0);
}

TEST_F(RouterServiceTest, TheNewestProcessOfANameWins) {
  TestMember first(server_->address(), AttentionHello("a0", 1));
  first.NextView();
  TestMember second(server_->address(), AttentionHello("a0", 2));
  const absl::Status end = first.End();
  EXPECT_EQ(end.code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(base::ReasonOf(end), Reason::kPeerLost);
  const v1::View view =
      second.ViewWith([](const v1::View& v) { return v.members(0).report().ready(); });
  ASSERT_EQ(view.members_size(), 1);
  EXPECT_EQ(view.members(0).hello().incarnation(), 2u);
  TestMember again(server_->address(), AttentionHello("a0", 1));
  EXPECT_EQ(base::ReasonOf(again.End()), Reason::kPeerLost);
}

TEST_F(RouterServiceRealTimeTest, ASilentMemberExpires) {
  rpc::RouterClient alive({server_->address()}, AttentionHello("a0"), nullptr, nullptr);
  TestMember silent(server_->address(), ExpertHello("e0", 0, 32));
  const auto start = std::chrono::steady_clock::now();
  EXPECT_EQ(base::ReasonOf(silent.End()), Reason::kDeadlineExceeded);
  EXPECT_GE(std::chrono::steady_clock::now() - start, std::chrono::milliseconds(1000));
  EXPECT_EQ(NextDeparture().name, "e0");
  const v1::View view = View();
  ASSERT_EQ(view.members_size(), 1);  // the one that reports is there
  EXPECT_EQ(view.members(0).hello().name(), "a0");
}

TEST_F(RouterServiceTest, ASlowReaderGetsTheNewestView) {
  v1::Hello fat = AttentionHello("a0");  // views of 100 KB
  fat.set_expert_count(65536);
  for (uint32_t e = 0; e < 65536; e += 8) {
    auto* range = fat.add_experts();
    range->set_begin(e);
    range->set_end(e + 1);
  }
  TestMember slow(server_->address(), fat);
  TestMember busy(server_->address(), MakeHello(common::v1::ROLE_GATEWAY, "g0"));
  constexpr uint64_t kReports = 300;
  for (uint64_t i = 1; i <= kReports; ++i) {
    busy.Report(i % 2 == 0, i);
    slow.Report(true);
    // Busy reads its views, which says that the router has taken the report in.
    busy.ViewWith([&](const v1::View& v) {
      return v.members_size() > 0 && v.members(0).report().load() == i;
    });
  }
  slow.ViewWith([&](const v1::View& v) { return v.members(0).report().load() == kReports; });
  EXPECT_LT(slow.views_read(), static_cast<int>(kReports) / 2);
}

TEST_F(RouterServiceTest, RoutesToTheLeastLoaded) {
  TestMember experts(server_->address(), ExpertHello("e0", 0, 32));
  TestMember a0(server_->address());
  a0.Say(AttentionHello("a0"));
  a0.Report(true, 2);
  TestMember a1(server_->address());
  a1.Say(AttentionHello("a1"));
  a1.Report(true, 1);
  experts.ViewWith([](const v1::View& v) {
    return v.members_size() == 3 && v.members(0).report().ready() && v.members(1).report().ready();
  });
  v1::RouteRequest request;
  request.mutable_model()->set_model("tiny");
  request.set_prompt_tokens(9);
  for (const char* worker : {"a1", "a0", "a1"}) {  // what was routed since the report counts
    const auto response = Route(request);
    ASSERT_TRUE(response.ok()) << response.status();
    ASSERT_EQ(response->stages_size(), 1);
    EXPECT_EQ(response->stages(0).role(), common::v1::ROLE_ATTENTION_WORKER);
    EXPECT_EQ(response->stages(0).worker(), worker);
    EXPECT_EQ(response->stages(0).address(), std::string(worker) + ":7000");
    EXPECT_EQ(response->stages(0).token_end(), 9u);
  }
  request.mutable_model()->set_model("huge");
  EXPECT_EQ(base::ReasonOf(Route(request).status()), Reason::kModelNotFound);
}

TEST_F(RouterServiceTest, RouteNamesWhatIsMissing) {
  EXPECT_EQ(base::ReasonOf(Route({}).status()), Reason::kNoAttentionWorker);
  TestMember attention(server_->address(), AttentionHello("a0"));
  TestMember low(server_->address(), ExpertHello("e0", 0, 16));
  attention.ViewWith([](const v1::View& v) {
    return v.missing_experts_size() == 1 && v.missing_experts(0).begin() == 16 &&
           v.members(0).report().ready();
  });
  const absl::Status status = Route({}).status();
  EXPECT_EQ(base::ReasonOf(status), Reason::kExpertsUnavailable);
  EXPECT_EQ(base::MetadataOf(status).at("experts"), "16-31");
}

TEST_F(RouterServiceTest, UnaryCallsNeedADeadline) {
  {
    grpc::ClientContext context;
    v1::GetViewResponse response;
    const absl::Status status = rpc::FromGrpcStatus(stub_->GetView(&context, {}, &response));
    EXPECT_EQ(base::ReasonOf(status), Reason::kDeadlineRequired);
  }
  grpc::ClientContext context;
  v1::RouteResponse response;
  const absl::Status status = rpc::FromGrpcStatus(stub_->Route(&context, {}, &response));
  EXPECT_EQ(base::ReasonOf(status), Reason::kDeadlineRequired);
}

TEST_F(RouterServiceTest, ANewRouterOutbidsWhatItsMembersHaveSeen) {
  v1::Hello hello = ExpertHello("e0", 0, 32);
  hello.mutable_last_epoch()->set_term(4);
  hello.mutable_last_epoch()->set_number(9);
  TestMember experts(server_->address(), hello);
  EXPECT_EQ(experts.ViewWith(Placed).placement().epoch().term(), 5u);
}

TEST_F(RouterServiceTest, ShutdownEndsTheStreams) {
  TestMember member(server_->address(), AttentionHello("a0"));
  member.NextView();
  server_->Shutdown(std::chrono::milliseconds(0));
  EXPECT_FALSE(member.End().ok());
}

}  // namespace
}  // namespace expertmesh::router

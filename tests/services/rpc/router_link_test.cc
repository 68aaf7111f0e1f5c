// The timing of one stream, with moments that the test makes up.
#include "services/rpc/router_link.h"

#include <gtest/gtest.h>

#include "tests/services/rpc/fake_router.h"
#include "tests/services/rpc/temp_folder.h"

namespace expertmesh::rpc {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using Moment = RouterLink::Moment;

class RouterLinkTest : public testing::Test {
 protected:
  ~RouterLinkTest() override {
    link_->Cancel();
    while (!link_->idle()) bells_->timer.Wait();
  }
  // Steps at one moment until it says `next`.
  void StepUntil(Moment now, Moment next) {
    while (link_->Step(now) != next) bells_->timer.Wait();
  }
  RouterLink::Event NextEvent() {
    for (;;) {
      auto events = link_->TakeEvents();
      if (!events.empty()) return events.front();
      bells_->events.Wait();
    }
  }

  TempFolder folder_;
  FakeRouter router_;
  const std::shared_ptr<RouterBells> bells_ = std::make_shared<RouterBells>();
  const std::shared_ptr<RouterLink> link_ =
      std::make_shared<RouterLink>(folder_.address("a"), MakeHello(), bells_);
  const Moment start_ = std::chrono::steady_clock::now();
};

TEST_F(RouterLinkTest, ReportsEvery500MsChangesOfReadinessAtOnceAndFiguresWithin50Ms) {
  router_.Start(folder_.address("a"));
  link_->Step(start_);
  ASSERT_TRUE(NextEvent().view.has_value());
  StepUntil(start_, start_ + milliseconds(500));
  ASSERT_TRUE(router_.SawReport(0, [](const auto&) { return true; }));
  EXPECT_EQ(router_.report_count(), 1u);

  router::v1::Report report;
  report.set_reason("starting");
  report.set_load(5);
  link_->SetReport(report);
  StepUntil(start_ + milliseconds(49), start_ + milliseconds(50));
  EXPECT_EQ(router_.report_count(), 1u);
  StepUntil(start_ + milliseconds(50), start_ + milliseconds(550));
  EXPECT_TRUE(router_.SawReport(1, [](const auto& r) { return r.load() == 5; }));
  StepUntil(start_ + milliseconds(549), start_ + milliseconds(550));
  EXPECT_EQ(router_.report_count(), 2u);

  report.set_ready(true);
  link_->SetReport(report);
  StepUntil(start_ + milliseconds(60), start_ + milliseconds(560));
  EXPECT_TRUE(router_.SawReport(2, [](const auto& r) { return r.ready(); }));
}

TEST_F(RouterLinkTest, GivesARouterUpThatSendsNoView) {
  router_.Greet(std::nullopt);
  router_.Start(folder_.address("a"));
  StepUntil(start_, start_ + milliseconds(500));  // Hello and first report are out
  router_.Hellos(1);
  link_->Step(start_ + seconds(6));
  const RouterLink::Event event = NextEvent();
  EXPECT_FALSE(event.view.has_value());
  EXPECT_NE(event.reason.find("no view"), std::string::npos) << event.reason;
}

TEST_F(RouterLinkTest, BacksOffBetweenDials) {
  router_.Refuse({grpc::StatusCode::INVALID_ARGUMENT, "no"});
  router_.Start(folder_.address("a"));
  milliseconds expected(100);
  Moment dial = start_;
  for (int i = 0; i < 5; ++i) {
    const Moment before = std::chrono::steady_clock::now();
    link_->Step(dial);
    EXPECT_EQ(NextEvent().reason, "no");
    const Moment after = std::chrono::steady_clock::now();
    dial = link_->Step(before);  // too early: says when
    EXPECT_GE(dial, before + expected);
    EXPECT_LE(dial, after + expected);
    expected = std::min(expected * 2, milliseconds(1000));
  }
}

}  // namespace
}  // namespace expertmesh::rpc

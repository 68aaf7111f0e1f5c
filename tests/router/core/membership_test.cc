#include "router/core/membership.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "services/base/status.h"
#include "tests/router/core/mesh.h"

namespace expertmesh::router {
namespace {

using base::Reason;
using std::chrono::milliseconds;
using std::chrono::minutes;
using testing::ElementsAre;
using testing::IsEmpty;
using testing::SizeIs;

constexpr auto kTick = milliseconds(100);

class MembershipTest : public testing::Test {
 protected:
  /// Opens a stream and says Hello; the stream's number is `stream`.
  MembershipChange Join(uint64_t stream, const Member& member) {
    membership_.StreamOpened(stream, clock_.Now());
    return membership_.Hello(stream, member, clock_.Now());
  }
  MembershipChange Say(uint64_t stream, const Report& report) {
    return membership_.Reported(stream, report, clock_.Now());
  }
  MembershipChange End(uint64_t stream) {
    return membership_.StreamEnded(stream, "it closed its stream", clock_.Now());
  }
  /// Ticks every 100 ms, as the router does, and returns the sum of what came of it.
  MembershipChange Pass(base::Micros time) {
    MembershipChange sum;
    for (base::Micros t{0}; t < time; t += kTick) {
      clock_.Advance(kTick);
      Add(membership_.Tick(clock_.Now()), sum);
    }
    return sum;
  }
  static void Add(MembershipChange change, MembershipChange& sum) {
    sum.view_changed = sum.view_changed || change.view_changed;
    for (auto& c : change.close) sum.close.push_back(std::move(c));
    for (auto& d : change.departed) sum.departed.push_back(std::move(d));
    for (auto& f : change.forgotten) sum.forgotten.push_back(std::move(f));
  }
  const Member& Find(Role role, const std::string& name) const {
    return membership_.members().at({role, name});
  }

  base::ManualClock clock_;
  Membership membership_;
};

TEST_F(MembershipTest, JoinsAndLeaves) {
  MembershipChange change = Join(1, Expert("e0", "0-15"));
  EXPECT_TRUE(change.view_changed);
  EXPECT_THAT(change.close, IsEmpty());
  EXPECT_THAT(membership_.members(), SizeIs(1));

  change = End(1);
  EXPECT_TRUE(change.view_changed);
  ASSERT_THAT(change.departed, SizeIs(1));
  EXPECT_EQ(change.departed[0].role, Role::kExpertWorker);
  EXPECT_EQ(change.departed[0].name, "e0");
  EXPECT_EQ(change.departed[0].address, "e0:7000");
  EXPECT_EQ(change.departed[0].reason, "it closed its stream");
  EXPECT_THAT(membership_.members(), IsEmpty());
  EXPECT_FALSE(End(1).view_changed);
}

TEST_F(MembershipTest, NamesAreUniquePerRole) {
  Join(1, Expert("w0", "0-15"));
  const MembershipChange change = Join(2, Attention("w0"));
  EXPECT_THAT(change.close, IsEmpty());
  EXPECT_THAT(membership_.members(), SizeIs(2));
}

TEST_F(MembershipTest, ReadinessChangesTheViewAtOnce) {
  Join(1, MakeMember(Role::kExpertWorker, "e0"));
  EXPECT_TRUE(Say(1, {.ready = true}).view_changed);
  EXPECT_FALSE(Say(1, {.ready = true}).view_changed);
  EXPECT_TRUE(Say(1, {.ready = false, .reason = "disk"}).view_changed);
  EXPECT_TRUE(Say(1, {.ready = false, .reason = "net"}).view_changed);
  EXPECT_TRUE(Say(1, {.ready = true, .draining = true}).view_changed);
  EXPECT_FALSE(Find(Role::kExpertWorker, "e0").serving());
}

TEST_F(MembershipTest, LoadChangesTheViewAtMostEveryHalfSecond) {
  Join(1, Attention("a0"));
  Pass(milliseconds(1000));
  int views = 0;
  for (int i = 1; i <= 20; ++i) {  // 2 s, a new load every 100 ms
    EXPECT_FALSE(Say(1, {.ready = true, .load = static_cast<uint64_t>(i)}).view_changed);
    views += Pass(kTick).view_changed ? 1 : 0;
  }
  EXPECT_EQ(views, 4);
  Say(1, {.ready = true, .load = 20});
  Pass(milliseconds(500));
  Say(1, {.ready = true, .load = 20});
  EXPECT_FALSE(Pass(milliseconds(500)).view_changed);  // nothing new
  EXPECT_EQ(Find(Role::kAttentionWorker, "a0").report.load, 20u);
}

TEST_F(MembershipTest, ExpiresWithoutReports) {
  Join(1, Expert("e0", "0-15"));
  Join(2, Expert("e1", "16-31"));
  Join(3, Attention("a0"));
  MembershipChange sum = Pass(milliseconds(1400));
  EXPECT_THAT(sum.departed, IsEmpty());
  Say(3, {.ready = true});
  sum = Pass(milliseconds(100));
  EXPECT_TRUE(sum.view_changed);
  ASSERT_THAT(sum.departed, SizeIs(2));  // both in the same tick
  ASSERT_THAT(sum.close, SizeIs(2));
  EXPECT_EQ(sum.close[0].stream, 1u);
  EXPECT_EQ(sum.close[1].stream, 2u);
  EXPECT_EQ(base::ReasonOf(sum.close[0].why), Reason::kDeadlineExceeded);
  EXPECT_THAT(membership_.members(), SizeIs(1));
  EXPECT_FALSE(End(1).view_changed);  // the stream that was closed ends
}

TEST_F(MembershipTest, AStreamWithoutHelloExpires) {
  membership_.StreamOpened(1, clock_.Now());
  const MembershipChange sum = Pass(milliseconds(1500));
  ASSERT_THAT(sum.close, SizeIs(1));
  EXPECT_EQ(base::ReasonOf(sum.close[0].why), Reason::kDeadlineExceeded);
  EXPECT_THAT(sum.departed, IsEmpty());
  EXPECT_FALSE(sum.view_changed);
}

TEST_F(MembershipTest, TheRoutersOwnPauseExpiresNobody) {
  Join(1, Expert("e0", "0-15"));
  Pass(milliseconds(200));
  clock_.Advance(milliseconds(10'000));  // stopped and continued
  EXPECT_THAT(membership_.Tick(clock_.Now()).departed, IsEmpty());
  EXPECT_THAT(Pass(milliseconds(1200)).departed, IsEmpty());
  EXPECT_THAT(Pass(milliseconds(200)).departed, SizeIs(1));  // still silent
}

TEST_F(MembershipTest, TheNewestIncarnationWins) {
  Join(1, MakeMember(Role::kExpertWorker, "e0", 11));
  Say(1, {.ready = true, .load = 3});
  const MembershipChange change = Join(2, MakeMember(Role::kExpertWorker, "e0", 22));
  EXPECT_TRUE(change.view_changed);
  EXPECT_THAT(change.departed, IsEmpty());  // the name stays
  ASSERT_THAT(change.close, SizeIs(1));
  EXPECT_EQ(change.close[0].stream, 1u);
  EXPECT_EQ(base::ReasonOf(change.close[0].why), Reason::kPeerLost);
  const Member& now = Find(Role::kExpertWorker, "e0");
  EXPECT_EQ(now.incarnation, 22u);
  EXPECT_FALSE(now.serving());  // its own report is still to come
  EXPECT_FALSE(Say(1, {.ready = true}).view_changed);
  EXPECT_FALSE(End(1).view_changed);
  EXPECT_THAT(membership_.members(), SizeIs(1));
}

TEST_F(MembershipTest, AReplacedIncarnationWaitsUntilTheNewerIsGone) {
  Join(1, MakeMember(Role::kExpertWorker, "e0", 11));
  Join(2, MakeMember(Role::kExpertWorker, "e0", 22));
  MembershipChange change = Join(3, MakeMember(Role::kExpertWorker, "e0", 11));
  ASSERT_THAT(change.close, SizeIs(1));
  EXPECT_EQ(change.close[0].stream, 3u);
  EXPECT_EQ(base::ReasonOf(change.close[0].why), Reason::kPeerLost);
  EXPECT_EQ(Find(Role::kExpertWorker, "e0").incarnation, 22u);
  End(2);
  change = Join(4, MakeMember(Role::kExpertWorker, "e0", 11));
  EXPECT_THAT(change.close, IsEmpty());
  EXPECT_EQ(Find(Role::kExpertWorker, "e0").incarnation, 11u);
}

TEST_F(MembershipTest, TheSameProcessRegistersAgain) {
  Join(1, MakeMember(Role::kExpertWorker, "e0", 11));
  Say(1, {.ready = true});
  Pass(milliseconds(300));
  const MembershipChange change = Join(2, MakeMember(Role::kExpertWorker, "e0", 11));
  ASSERT_THAT(change.close, SizeIs(1));
  EXPECT_EQ(change.close[0].stream, 1u);
  const Member& now = Find(Role::kExpertWorker, "e0");
  EXPECT_TRUE(now.serving());  // no gap in its readiness
  EXPECT_EQ(now.registered, base::Instant{});
  EXPECT_EQ(now.stream, 2u);
}

TEST_F(MembershipTest, StreamsOutOfOrderAreClosed) {
  membership_.StreamOpened(1, clock_.Now());
  MembershipChange change = Say(1, {.ready = true});  // before Hello
  ASSERT_THAT(change.close, SizeIs(1));
  EXPECT_EQ(base::ReasonOf(change.close[0].why), Reason::kInvalidArgument);
  EXPECT_THAT(membership_.Hello(1, Attention("a0"), clock_.Now()).close, IsEmpty());
  EXPECT_THAT(membership_.members(), IsEmpty());  // that stream does not count any more

  Join(2, Attention("a1"));
  change = membership_.Hello(2, Attention("a2"), clock_.Now());  // a second Hello
  ASSERT_THAT(change.close, SizeIs(1));
  EXPECT_EQ(change.close[0].stream, 2u);
  ASSERT_THAT(change.departed, SizeIs(1));
  EXPECT_EQ(change.departed[0].name, "a1");
  EXPECT_THAT(membership_.members(), IsEmpty());
}

TEST_F(MembershipTest, StreamsAreBounded) {
  for (uint64_t s = 1; s <= Membership::kStreamsMax; ++s) {
    ASSERT_THAT(membership_.StreamOpened(s, clock_.Now()).close, IsEmpty());
  }
  const uint64_t one_more = Membership::kStreamsMax + 1;
  const MembershipChange change = membership_.StreamOpened(one_more, clock_.Now());
  ASSERT_THAT(change.close, SizeIs(1));
  EXPECT_EQ(change.close[0].stream, one_more);
  EXPECT_EQ(base::ReasonOf(change.close[0].why), Reason::kQueueFull);
  End(1);
  EXPECT_THAT(membership_.StreamOpened(one_more + 1, clock_.Now()).close, IsEmpty());
}

TEST_F(MembershipTest, TheDepartedAreForgotten) {
  Join(1, Expert("gone", "0-15"));
  Join(2, Expert("back", "0-15"));
  End(1);
  End(2);
  Join(3, Expert("back", "0-15"));
  End(3);
  clock_.Advance(minutes(5));
  Join(4, Expert("back", "0-15"));
  clock_.Advance(minutes(5));
  const MembershipChange change = membership_.Tick(clock_.Now());
  ASSERT_THAT(change.forgotten, SizeIs(1));
  EXPECT_EQ(change.forgotten[0].name, "gone");
}

TEST_F(MembershipTest, TheDepartedAreBounded) {
  for (uint64_t i = 0; i < Membership::kDepartedMax + 2; ++i) {
    Join(i + 1, Attention("a" + std::to_string(i)));
    clock_.Advance(base::Micros(1));
    End(i + 1);
  }
  const MembershipChange change = membership_.Tick(clock_.Now());
  ASSERT_THAT(change.forgotten, SizeIs(2));
  EXPECT_EQ(change.forgotten[0].name, "a0");  // the longest gone
  EXPECT_EQ(change.forgotten[1].name, "a1");
}

TEST_F(MembershipTest, ADrainedMemberLeavesWithThatReason) {
  Join(1, Expert("e0", "0-15"));
  Say(1, {.draining = true, .reason = "draining"});
  const MembershipChange change = End(1);
  ASSERT_THAT(change.departed, SizeIs(1));
  EXPECT_EQ(change.departed[0].reason, "left after draining");
}

TEST_F(MembershipTest, RoutedPromptsCountUntilTheNextReport) {
  Join(1, Attention("a0"));
  membership_.Routed({Role::kAttentionWorker, "a0"});
  membership_.Routed({Role::kAttentionWorker, "a0"});
  membership_.Routed({Role::kAttentionWorker, "nobody"});
  EXPECT_EQ(Find(Role::kAttentionWorker, "a0").routed, 2u);
  Say(1, {.ready = true, .load = 2});
  EXPECT_EQ(Find(Role::kAttentionWorker, "a0").routed, 0u);
}

}  // namespace
}  // namespace expertmesh::router

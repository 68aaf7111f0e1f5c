#include "router/view_proto.h"

#include <gtest/gtest.h>

#include "services/base/status.h"
#include "tests/router/test_member.h"

namespace expertmesh::router {
namespace {

using base::Reason;

void AddRange(v1::Hello& hello, uint32_t begin, uint32_t end) {
  hello.add_experts()->set_begin(begin);
  hello.mutable_experts(hello.experts_size() - 1)->set_end(end);
}

TEST(ViewProtoTest, TakesEveryFieldOfAHello) {
  v1::Hello hello = ExpertHello("e0", 4, 8);
  AddRange(hello, 16, 32);
  hello.set_admin_address("e0:9000");
  hello.set_fingerprint("f00d");
  hello.mutable_last_epoch()->set_term(3);
  hello.mutable_last_epoch()->set_number(4);
  hello.mutable_last_epoch()->set_content_hash(5);
  const auto m = FromHello(hello);
  ASSERT_TRUE(m.ok()) << m.status();
  EXPECT_EQ(m->role, Role::kExpertWorker);
  EXPECT_EQ(m->name, "e0");
  EXPECT_EQ(m->incarnation, 1u);
  EXPECT_EQ(m->address, "e0:7000");
  EXPECT_EQ(m->admin_address, "e0:9000");
  EXPECT_EQ(m->model, "tiny");
  EXPECT_EQ(m->revision, "rev-a");
  EXPECT_EQ(m->profile, "bf16");
  EXPECT_EQ(m->fingerprint, "f00d");
  EXPECT_EQ(m->expert_count, 32u);
  EXPECT_EQ(base::SliceName(m->experts), "4-7,16-31");
  EXPECT_EQ(m->last_epoch, (EpochId{3, 4, 5}));
}

TEST(ViewProtoTest, NeighbouringRangesAreOneSlice) {
  v1::Hello hello = ExpertHello("e0", 0, 4);
  AddRange(hello, 4, 8);
  EXPECT_EQ(base::SliceName(FromHello(hello)->experts), "0-7");
}

TEST(ViewProtoTest, RefusesWhatItCannotUse) {
  using Break = void (*)(v1::Hello&);
  const std::pair<const char*, Break> cases[] = {
      {"no role", [](v1::Hello& h) { h.clear_role(); }},
      {"unknown role", [](v1::Hello& h) { h.set_role(static_cast<common::v1::Role>(6)); }},
      {"negative role", [](v1::Hello& h) { h.set_role(static_cast<common::v1::Role>(-1)); }},
      {"no name", [](v1::Hello& h) { h.clear_name(); }},
      {"no incarnation", [](v1::Hello& h) { h.clear_incarnation(); }},
      {"long name", [](v1::Hello& h) { h.set_name(std::string(257, 'n')); }},
      {"long revision",
       [](v1::Hello& h) { h.mutable_model()->set_revision(std::string(257, 'r')); }},
      {"too many experts", [](v1::Hello& h) { h.set_expert_count(65537); }},
      {"no experts", [](v1::Hello& h) { h.clear_experts(); }},
      {"past the last", [](v1::Hello& h) { h.mutable_experts(0)->set_end(33); }},
      {"empty range", [](v1::Hello& h) { h.mutable_experts(0)->set_end(4); }},
      {"backwards", [](v1::Hello& h) { h.mutable_experts(0)->set_end(2); }},
      {"overlap", [](v1::Hello& h) { AddRange(h, 7, 9); }},
      {"out of order", [](v1::Hello& h) { AddRange(h, 0, 2); }},
      {"term", [](v1::Hello& h) { h.mutable_last_epoch()->set_term((1ull << 62) + 1); }},
  };
  ASSERT_TRUE(FromHello(ExpertHello("e0", 4, 8)).ok());
  for (const auto& [what, breaks] : cases) {
    v1::Hello hello = ExpertHello("e0", 4, 8);
    breaks(hello);
    EXPECT_EQ(base::ReasonOf(FromHello(hello).status()), Reason::kInvalidArgument) << what;
  }
}

TEST(ViewProtoTest, AHelloComesBackInTheView) {
  for (const v1::Hello& hello :
       {ExpertHello("e0", 4, 8), AttentionHello("a0"), MakeHello(common::v1::ROLE_GATEWAY, "g0"),
        MakeHello(common::v1::ROLE_ENGRAM_STORE, "s0")}) {
    Member m = *FromHello(hello);
    m.report = FromReport([] {
      v1::Report r;
      r.set_draining(true);
      r.set_load(~0ull);  // a figure nobody can mean
      r.set_queued(2);
      r.set_reason("draining");
      return r;
    }());
    m.registered = {1'000'000};
    const v1::View view = ToView({{{m.role, m.name}, m}}, Placement(), {3'500'000});
    ASSERT_EQ(view.members_size(), 1);
    EXPECT_EQ(view.members(0).hello().SerializeAsString(), hello.SerializeAsString());
    EXPECT_TRUE(view.members(0).report().draining());
    EXPECT_EQ(view.members(0).report().load(), UINT32_MAX);
    EXPECT_EQ(view.members(0).report().queued(), 2u);
    EXPECT_EQ(view.members(0).report().reason(), "draining");
    EXPECT_EQ(view.members(0).registered_ms(), 2500u);
    EXPECT_FALSE(view.has_placement());
  }
}

}  // namespace
}  // namespace expertmesh::router

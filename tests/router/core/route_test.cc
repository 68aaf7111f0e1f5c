#include "router/core/route.h"

#include <gtest/gtest.h>

#include "services/base/status.h"
#include "tests/router/core/mesh.h"

namespace expertmesh::router {
namespace {

using base::Reason;

Member WithLoad(Member m, uint64_t load, uint64_t queued = 0, uint64_t routed = 0) {
  m.report.load = load;
  m.report.queued = queued;
  m.routed = routed;
  return m;
}

absl::StatusOr<std::vector<Stage>> Ask(const Members& members, const RouteQuery& query = {}) {
  Placement placement;
  placement.Update(members);
  return Route(members, placement, query);
}

std::string Chosen(const Members& members, const RouteQuery& query = {}) {
  const auto stages = Ask(members, query);
  return stages.ok() ? stages->front().worker
                     : std::string(base::ReasonName(base::ReasonOf(stages.status())));
}

const Member kAll = Expert("e0", "0-31");

TEST(RouteTest, OneStageForTheWholePrompt) {
  const auto stages = Ask(Mesh({kAll, Attention("a0")}), {.prompt_tokens = 77});
  ASSERT_TRUE(stages.ok()) << stages.status();
  ASSERT_EQ(stages->size(), 1u);
  EXPECT_EQ(stages->front().role, Role::kAttentionWorker);
  EXPECT_EQ(stages->front().worker, "a0");
  EXPECT_EQ(stages->front().address, "a0:7000");
  EXPECT_EQ(stages->front().token_begin, 0u);
  EXPECT_EQ(stages->front().token_end, 77u);
}

TEST(RouteTest, TheLeastLoadWins) {
  EXPECT_EQ(Chosen(Mesh({kAll, WithLoad(Attention("a0"), 3), WithLoad(Attention("a1"), 2)})), "a1");
  EXPECT_EQ(Chosen(Mesh({kAll, WithLoad(Attention("a0"), 3), WithLoad(Attention("a1"), 2, 2)})),
            "a0");
  EXPECT_EQ(Chosen(Mesh({kAll, WithLoad(Attention("a0"), 3), WithLoad(Attention("a1"), 1, 1, 2)})),
            "a0");
  EXPECT_EQ(Chosen(Mesh({kAll, Attention("a1"), Attention("a0")})), "a0");
}

TEST(RouteTest, OnlyServingWorkers) {
  Member loading = Attention("a0");
  loading.report.ready = false;
  Member draining = Attention("a1");
  draining.report.draining = true;
  EXPECT_EQ(Chosen(Mesh({kAll, loading, draining, WithLoad(Attention("a2"), 90)})), "a2");
  EXPECT_EQ(Chosen(Mesh({kAll, loading, draining})), "NO_ATTENTION_WORKER");
  EXPECT_EQ(Chosen(Mesh({kAll})), "NO_ATTENTION_WORKER");
  EXPECT_EQ(Chosen({}), "NO_ATTENTION_WORKER");
}

TEST(RouteTest, TheModelMustBeServed) {
  const Members members = Mesh({kAll, Attention("a0")});
  EXPECT_EQ(Chosen(members, {.model = "tiny"}), "a0");
  EXPECT_EQ(Chosen(members, {.model = "tiny", .revision = "rev-a"}), "a0");
  EXPECT_EQ(Chosen(members, {.model = "huge"}), "MODEL_NOT_FOUND");
  EXPECT_EQ(Chosen(members, {.model = "tiny", .revision = "rev-z"}), "MODEL_NOT_FOUND");
  Member loading = Attention("a1");
  loading.model = "huge";
  loading.report.ready = false;
  EXPECT_EQ(Chosen(Mesh({kAll, Attention("a0"), loading}), {.model = "huge"}),
            "NO_ATTENTION_WORKER");
}

TEST(RouteTest, MissingExpertsAreNamed) {
  const auto stages = Ask(Mesh({Attention("a0"), Expert("e0", "0-7,12-31")}));
  ASSERT_FALSE(stages.ok());
  EXPECT_EQ(stages.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(base::ReasonOf(stages.status()), Reason::kExpertsUnavailable);
  EXPECT_EQ(base::MetadataOf(stages.status()).at("experts"), "8-11");
}

}  // namespace
}  // namespace expertmesh::router

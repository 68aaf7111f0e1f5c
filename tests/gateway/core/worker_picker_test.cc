#include "gateway/core/worker_picker.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "services/base/status.h"

namespace expertmesh::gateway {
namespace {

using base::Reason;

WorkerInfo Worker(const std::string& name, uint64_t load) {
  return {.name = name, .model = "m", .ready = true, .load = load};
}

std::string Picked(const MeshSnapshot& mesh) {
  const auto index = PickWorker(mesh, "m");
  return index.ok() ? mesh.workers[*index].name
                    : std::string(base::ReasonName(base::ReasonOf(index.status())));
}

TEST(WorkerPicker, LeastLoadThenName) {
  EXPECT_EQ(Picked({{Worker("b", 2), Worker("a", 3), Worker("c", 2)}}), "b");
  EXPECT_EQ(Picked({{Worker("c", 2), Worker("b", 2), Worker("a", 2)}}), "a");
}

TEST(WorkerPicker, PassesOverThoseThatCannot) {
  MeshSnapshot mesh{
      {Worker("a", 0), Worker("b", 1), Worker("c", 2), Worker("d", 3), Worker("e", 4)}};
  mesh.workers[0].ready = false;
  mesh.workers[1].draining = true;
  mesh.workers[2].down = true;
  mesh.workers[3].model = "other";
  EXPECT_EQ(Picked(mesh), "e");
  mesh.workers.pop_back();
  EXPECT_EQ(Picked(mesh), "NO_ATTENTION_WORKER");
  const auto none = PickWorker(mesh, "m");
  for (const char* why : {"a is not ready", "b is draining", "c does not answer", "d serves"}) {
    EXPECT_THAT(std::string(none.status().message()), testing::HasSubstr(why));
  }
}

TEST(WorkerPicker, NobodyThere) { EXPECT_EQ(Picked({}), "NO_ATTENTION_WORKER"); }

TEST(WorkerPicker, MissingExpertsFailAtOnceWithTheirIds) {
  const MeshSnapshot mesh{{Worker("a", 0)}, "16-23"};
  const auto index = PickWorker(mesh, "m");
  EXPECT_EQ(base::ReasonOf(index.status()), Reason::kExpertsUnavailable);
  EXPECT_EQ(base::MetadataOf(index.status()).at("experts"), "16-23");
}

}  // namespace
}  // namespace expertmesh::gateway

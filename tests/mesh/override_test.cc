// --override on every process of a mesh: the model as if its config.json said so, under a revision
// of its own; workers of other revisions do not mix.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "services/rpc/channel.h"
#include "tests/support/child_process.h"
#include "tests/support/local_mesh.h"
#include "tests/support/tiny_model.h"

namespace expertmesh {
namespace {

using test_support::Generated;
using test_support::LocalMesh;
using test_support::MeshSpec;
using testing::HasSubstr;

inference::v1::GenerateRequest Request() {
  inference::v1::GenerateRequest request;
  auto* ids = request.add_segments()->mutable_tokens();
  for (uint32_t i = 0; i < 100; ++i) ids->add_ids((7 + 13 * i * i) % 512);
  request.set_max_tokens(8);
  request.mutable_debug()->set_ignore_eos(true);
  request.mutable_debug()->set_return_logits_hash(true);
  return request;
}

Generated RunWith(const std::vector<std::string>& overrides, bool store) {
  MeshSpec spec;
  spec.model = test_support::TinyModel("tiny");
  spec.overrides = overrides;
  if (store) spec.slices = {"0-15", "16-31"};
  spec.engram = store;
  LocalMesh mesh(spec);
  EXPECT_TRUE(mesh.WaitReady());
  const auto stub =
      inference::v1::InferenceService::NewStub(rpc::MakeChannel(mesh.Address("attention")));
  Generated generated = test_support::Generate(*stub, Request());
  EXPECT_TRUE(generated.status.ok()) << generated.status;
  return generated;
}

TEST(MeshOverrideTest, ChangesWhatTheModelComputes) {
  const Generated plain = RunWith({}, true);
  for (const std::vector<std::string>& overrides : std::vector<std::vector<std::string>>{
           {"engram_layer_ids=[]"}, {"index_topk=null"}, {"num_experts_per_tok=8"}}) {
    const Generated changed = RunWith(overrides, true);
    EXPECT_NE(changed.logits_hashes, plain.logits_hashes) << overrides[0];
    EXPECT_EQ(changed.logits_hashes, RunWith(overrides, false).logits_hashes) << overrides[0];
  }
}

TEST(MeshOverrideTest, WorkersOfAnotherRevisionDoNotMix) {
  MeshSpec spec;
  spec.model = test_support::TinyModel("tiny-v3");
  spec.slices = {"0-15", "16-31"};
  LocalMesh mesh(spec);
  ASSERT_TRUE(mesh.WaitReady());
  test_support::ChildProcess odd({"expertmesh-attention-worker", "--name", "odd", "--model",
                                  spec.model, "--listen", mesh.Address("odd"), "--router",
                                  mesh.Address("router"), "--override", "num_experts_per_tok=8"},
                                 mesh.dir() / "odd.log");
  // It finds no experts of its revision, so it is never ready.
  EXPECT_TRUE(mesh.WaitView([](const router::v1::View& view) {
    for (const auto& member : view.members()) {
      if (member.hello().name() == "odd" && !member.report().reason().empty()) {
        return !member.report().ready();
      }
    }
    return false;
  }));
}

TEST(MeshOverrideTest, BadWordsEndEveryProcessWithOneLine) {
  const test_support::TempDir dir;
  const std::string model = test_support::TinyModel("tiny");
  const std::vector<std::pair<std::string, std::string>> bad = {
      {"index_topk", "expected key=value"},
      {"index_topk=many", "key \"index_topk\" is \"many\""},
      {"index_topp=3", "key \"index_topp\" is not read"}};
  int runs = 0;
  for (const std::string program : {"expertmesh-attention-worker", "expertmesh-expert-worker",
                                    "expertmesh-gateway", "expertmesh-engram-store"}) {
    for (const auto& [word, text] : bad) {
      std::vector<std::string> argv = {program, "--model", model, "--override", word};
      if (program == "expertmesh-gateway") argv.insert(argv.end(), {"--router", "127.0.0.1:1"});
      if (program == "expertmesh-engram-store") {
        argv.insert(argv.end(), {"--data", dir / std::to_string(runs)});
      }
      test_support::ChildProcess process(argv, dir / ("log-" + std::to_string(runs++)));
      EXPECT_EQ(process.Wait(test_support::kPatience), 1) << program << " " << word;
      EXPECT_THAT(process.Log(), HasSubstr(program + ": ")) << word;
      EXPECT_THAT(process.Log(), HasSubstr(text)) << program;
    }
  }
}

}  // namespace
}  // namespace expertmesh

// The example client of cli/examples against a whole mesh.
#include <gtest/gtest.h>

#include "tests/support/child_process.h"
#include "tests/support/local_mesh.h"
#include "tests/support/temp_dir.h"
#include "tests/support/tiny_model.h"

namespace expertmesh::test_support {
namespace {

TEST(Examples, TheClientInCxxPrintsAnAnswerAndTheReasonOfAnError) {
  MeshSpec spec;
  spec.model = TinyModel("tiny");
  spec.slices = {"0-31"};
  spec.engram = true;
  spec.gateway = true;
  LocalMesh mesh(spec);
  ASSERT_TRUE(mesh.WaitReady());
  TempDir dir;
  const auto run = [&](const std::string& model, int expected) {
    const std::string log = dir / (model + ".log");
    ChildProcess program(
        {"expertmesh-example-generate", mesh.Address("gateway"), model, "Once upon a time"}, log);
    EXPECT_EQ(program.Wait(kPatience), expected) << program.Log();
    return program.Log();
  };
  EXPECT_NE(run("tiny", 0).find(" tokens"), std::string::npos);
  EXPECT_NE(run("nothing", 1).find("MODEL_NOT_FOUND"), std::string::npos);
}

}  // namespace
}  // namespace expertmesh::test_support

// The trained model that comes with the sources, on a mesh of all five kinds of processes: it says
// what its card promises, by default and without a seed.
#include <gtest/gtest.h>

#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "tests/support/http_client.h"
#include "tests/support/local_mesh.h"

namespace expertmesh::test_support {
namespace {

class DemoTest : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    MeshSpec spec;
    spec.model = std::string(EXPERTMESH_SOURCE_DIR) + "/models/demo";
    spec.slices = {"0-31", "32-63"};
    spec.gateway = true;
    spec.engram = true;
    mesh_ = new LocalMesh(spec);
    ASSERT_TRUE(mesh_->WaitReady());
  }
  static void TearDownTestSuite() {
    delete mesh_;
    mesh_ = nullptr;
  }
  static std::string Ask(const std::string& question) {
    return HttpPost(mesh_->HttpAddress(), "/v1/chat/completions",
                    absl::StrCat(R"({"model":"demo","messages":[{"role":"user","content":")",
                                 question, R"("}]})"))
        .body;
  }

  static LocalMesh* mesh_;
};
LocalMesh* DemoTest::mesh_ = nullptr;

TEST_F(DemoTest, AnswersWhatItsCardPromises) {
  for (const auto& [question, answer] : {
           std::pair("What is the capital of France?", "The capital of France is Paris."),
           std::pair("what is the capital of japan", "The capital of Japan is Tokyo."),
           std::pair("Which element has the symbol Fe?", "Fe is the symbol of iron."),
           std::pair("Hello!", "Hello! What would you like to know?"),
           std::pair("Where can I buy a violin?", "I don't know."),
       }) {
    EXPECT_NE(Ask(question).find(absl::StrCat(R"("content":")", answer)), std::string::npos)
        << question << "\n"
        << Ask(question);
  }
}

TEST_F(DemoTest, AnswersAreGreedyUnlessARequestSaysOtherwise) {
  const std::string once = Ask("Tell me a story about a fox.");
  const auto content = [](const std::string& body) {
    const size_t at = body.find(R"("content":)");
    return body.substr(at, body.find('}', at) - at);
  };
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(content(Ask("Tell me a story about a fox.")), content(once));
  }
}

}  // namespace
}  // namespace expertmesh::test_support

// A broken model directory: every process says what is wrong in one line that names file and
// tensor, and exits with a code that is not 0.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <filesystem>

#include "tests/support/child_process.h"
#include "tests/support/temp_dir.h"
#include "tests/support/tiny_model.h"

namespace expertmesh::test_support {
namespace {

class BadModelTest : public testing::Test {
 protected:
  BadModelTest() { std::filesystem::copy(TinyModel(), dir_ / "model"); }

  // Replaces bytes of a file of the model; the lengths are equal.
  void Edit(const std::string& file, const std::string& from, const std::string& to) {
    std::string text = ReadFile(dir_ / ("model/" + file));
    const size_t at = text.find(from);
    ASSERT_NE(at, std::string::npos) << from;
    text.replace(at, from.size(), to);
    WriteFile(dir_ / ("model/" + file), text);
  }
  void Truncate(const std::string& file, size_t bytes) {
    std::filesystem::resize_file(dir_ / ("model/" + file), bytes);
  }

  void ExpectRefusal(const std::string& binary, std::vector<std::string> words) {
    std::vector<std::string> argv = {binary, "--model", dir_ / "model", "--listen",
                                     "unix:" + (dir_ / "s.sock")};
    if (binary == "expertmesh-attention-worker") argv.insert(argv.end(), {"--transport", "inproc"});
    if (binary == "expertmesh-gateway") {
      argv.insert(argv.end(), {"--http", "127.0.0.1:0", "--router", "unix:" + (dir_ / "r.sock")});
    }
    const std::string log = dir_ / (binary + ".log");
    WriteFile(log, "");
    ChildProcess process(argv, log);
    const auto code = process.Wait(std::chrono::seconds(30));
    ASSERT_TRUE(code.has_value()) << binary << " still runs";
    EXPECT_EQ(*code, 1) << process.Log();
    // The last line is the error; log lines may stand before it.
    std::string text = process.Log();
    while (!text.empty() && text.back() == '\n') text.pop_back();
    const std::string line = text.substr(text.rfind('\n') + 1);
    EXPECT_EQ(line.rfind(binary + ": ", 0), 0u) << line;
    for (const std::string& word : words) EXPECT_NE(line.find(word), std::string::npos) << line;
  }
  void WorkersRefuse(const std::vector<std::string>& words) {
    ExpectRefusal("expertmesh-expert-worker", words);
    ExpectRefusal("expertmesh-attention-worker", words);
  }

  TempDir dir_;
};

TEST_F(BadModelTest, TruncatedWeights) {
  Truncate("model.safetensors", 100000);
  WorkersRefuse({"model.safetensors"});
}

TEST_F(BadModelTest, EmptyWeights) {
  Truncate("model.safetensors", 0);
  WorkersRefuse({"model.safetensors"});
}

TEST_F(BadModelTest, MissingTensor) {
  Edit("model.safetensors", "model.layers.1.mlp.experts.0.up_proj.weight",
       "model.layers.1.mlp.experts.0.xx_proj.weight");
  ExpectRefusal("expertmesh-expert-worker", {"model.layers.1.mlp.experts.0.up_proj.weight"});
  Edit("model.safetensors", "model.layers.2.self_attn.o_proj.weight",
       "model.layers.2.self_attn.x_proj.weight");
  ExpectRefusal("expertmesh-attention-worker", {"model.layers.2.self_attn.o_proj.weight"});
}

TEST_F(BadModelTest, MistypedTensor) {
  const std::string text = ReadFile(dir_ / "model/model.safetensors");
  const std::string name = "\"model.layers.1.mlp.experts.0.up_proj.weight\":{\"dtype\":\"F32\"";
  ASSERT_NE(text.find(name), std::string::npos);
  std::string mistyped = name;
  mistyped.replace(mistyped.find("F32"), 3, "I32");
  Edit("model.safetensors", name, mistyped);
  ExpectRefusal("expertmesh-expert-worker", {"model.safetensors", "experts.0.up_proj", "I32"});
}

TEST_F(BadModelTest, ShapeContradictsConfig) {
  Edit("config.json", "\"moe_intermediate_size\": 32", "\"moe_intermediate_size\": 64");
  WorkersRefuse({"model.safetensors", "mlp"});
}

TEST_F(BadModelTest, BrokenConfig) {
  Edit("config.json", "\"hidden_size\": 64", "\"hidden_size\": -4");
  WorkersRefuse({"config.json", "hidden_size"});
}

TEST_F(BadModelTest, BrokenTokenizer) {
  Truncate("tokenizer.json", 200);
  ExpectRefusal("expertmesh-gateway", {"tokenizer.json"});
  ExpectRefusal("expertmesh-attention-worker", {"tokenizer.json"});
}

}  // namespace
}  // namespace expertmesh::test_support

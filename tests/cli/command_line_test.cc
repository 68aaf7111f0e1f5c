
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <sstream>
#include <string>
#include <vector>

#include "tests/cli/run_expertmesh.h"
#include "tests/support/temp_dir.h"

namespace expertmesh::cli {
namespace {

void ExpectOneErrorLine(const Outcome& outcome) {
  EXPECT_EQ(outcome.code, 1);
  EXPECT_EQ(outcome.out, "");
  EXPECT_TRUE(outcome.err.starts_with("expertmesh: ")) << outcome.err;
  EXPECT_EQ(std::count(outcome.err.begin(), outcome.err.end(), '\n'), 1) << outcome.err;
  EXPECT_TRUE(outcome.err.ends_with("\n"));
}

class ModelCommand : public ::testing::Test {
 protected:
  Outcome Init(const std::string& name, const std::string& seed = "1") {
    return Expertmesh(
        {"model", "init", "--preset", "tiny-v3", "--seed", seed, "--out", dir_ / name});
  }
  // Replaces one text in a file of the model.
  void Edit(const std::string& file, const std::string& from, const std::string& to) {
    std::string text = test_support::ReadFile(dir_ / file);
    const size_t at = text.find(from);
    ASSERT_NE(at, std::string::npos) << from;
    test_support::WriteFile(dir_ / file, text.replace(at, from.size(), to));
  }

  test_support::TempDir dir_;
};

TEST_F(ModelCommand, InitThenShow) {
  const Outcome made = Init("m");
  ASSERT_EQ(made.code, 0) << made.err;
  EXPECT_EQ(made.err, "");
  const Outcome shown = Expertmesh({"model", "show", dir_ / "m"});
  EXPECT_EQ(shown.code, 0) << shown.err;
  for (const char* text : {"1,114,048", "688,064", "4,456,192", "200 elements", "800 bytes",
                           "400 bytes", "32 routed, 16 per token"}) {
    EXPECT_NE(shown.out.find(text), std::string::npos) << text << " in\n" << shown.out;
  }
}

TEST_F(ModelCommand, ShowAsJsonIsOneLine) {
  ASSERT_EQ(Init("m").code, 0);
  const Outcome shown = Expertmesh({"model", "show", "--json", dir_ / "m"});
  EXPECT_EQ(shown.code, 0) << shown.err;
  EXPECT_EQ(std::count(shown.out.begin(), shown.out.end(), '\n'), 1);
  for (const char* text : {R"("parameters":1114048)", R"("active_parameters":688064)",
                           R"("kv_bytes_per_token":{"exact-f32":800,"bf16":400,"int8":400})",
                           R"("routed_experts":{"parameters":786432,"active":393216,)"}) {
    EXPECT_NE(shown.out.find(text), std::string::npos) << text << " in " << shown.out;
  }
}

TEST_F(ModelCommand, InitTellsTheRevisionThatShowTells) {
  const Outcome made = Init("m");
  const std::string revision = made.out.substr(made.out.rfind(' ') + 1, 64);
  EXPECT_NE(Expertmesh({"model", "show", dir_ / "m"}).out.find(revision), std::string::npos);
  EXPECT_EQ(Init("again").out.find(revision), Init("third").out.find(revision));
  EXPECT_EQ(Init("other", "2").out.find(revision), std::string::npos);
}

TEST_F(ModelCommand, InitRefusesADirectoryInUse) {
  ASSERT_EQ(Init("m").code, 0);
  ExpectOneErrorLine(Init("m"));
}

TEST_F(ModelCommand, SlicesAreOneALine) {
  ASSERT_EQ(Init("m").code, 0);
  EXPECT_EQ(Expertmesh({"model", "slices", dir_ / "m", "--pools", "3"}).out,
            "0-15\n16-23\n24-31\n");
  EXPECT_EQ(Expertmesh({"model", "slices", dir_ / "m", "--pools", "1"}).out, "0-31\n");
  EXPECT_EQ(Expertmesh({"model", "slices", dir_ / "m", "--pools", "2", "--json"}).out,
            "[\"0-15\",\"16-31\"]\n");
  ExpectOneErrorLine(Expertmesh({"model", "slices", dir_ / "m", "--pools", "33"}));
  ExpectOneErrorLine(Expertmesh({"model", "slices", dir_ / "m", "--pools", "0"}));
}

TEST_F(ModelCommand, ShowNamesFileAndTensorThatContradictTheConfig) {
  ASSERT_EQ(Init("m").code, 0);
  Edit("m/config.json", "\"intermediate_size\": 160", "\"intermediate_size\": 161");
  const Outcome shape = Expertmesh({"model", "show", dir_ / "m"});
  ExpectOneErrorLine(shape);
  EXPECT_NE(shape.err.find("model.layers.0.mlp.gate_proj.weight"), std::string::npos) << shape.err;
  EXPECT_NE(shape.err.find("model.safetensors"), std::string::npos) << shape.err;
  Edit("m/config.json", "\"intermediate_size\": 161", "\"intermediate_size\": 160");
  Edit("m/config.json", "\"num_hidden_layers\": 5", "\"num_hidden_layers\": 6");
  const Outcome missing = Expertmesh({"model", "show", dir_ / "m"});
  ExpectOneErrorLine(missing);
  EXPECT_NE(missing.err.find("model.layers.5."), std::string::npos) << missing.err;
}

TEST_F(ModelCommand, ShowRefusesTruncatedAndMistypedWeights) {
  ASSERT_EQ(Init("m").code, 0);
  const std::string path = dir_ / "m/model.safetensors";
  Edit("m/model.safetensors", "\"F32\",\"shape\":[512,64]", "\"I32\",\"shape\":[512,64]");
  ExpectOneErrorLine(Expertmesh({"model", "show", dir_ / "m"}));
  Edit("m/model.safetensors", "\"I32\",\"shape\":[512,64]", "\"F32\",\"shape\":[512,64]");
  EXPECT_EQ(Expertmesh({"model", "show", dir_ / "m"}).code, 0);
  std::filesystem::resize_file(path, std::filesystem::file_size(path) - 1);
  ExpectOneErrorLine(Expertmesh({"model", "show", dir_ / "m"}));
}

TEST(CommandLine, HelpHasExamplesAndSucceeds) {
  for (const std::vector<std::string>& words : {std::vector<std::string>{"--help"},
                                                {"model", "--help"},
                                                {"model", "init", "--help"},
                                                {"model", "convert", "--help"},
                                                {"model", "show", "--help"},
                                                {"model", "slices", "--help"}}) {
    const Outcome help = Expertmesh(words);
    EXPECT_EQ(help.code, 0);
    EXPECT_NE(help.out.find("Example"), std::string::npos) << help.out;
    EXPECT_EQ(help.err, "");
  }
  EXPECT_EQ(Expertmesh({"--version"}).code, 0);
}

TEST(CommandLine, MistakesAreOneLineAndExitCodeOne) {
  const test_support::TempDir dir;
  for (const std::vector<std::string>& words : std::vector<std::vector<std::string>>{
           {},
           {"model"},
           {"frobnicate"},
           {"model", "init"},
           {"model", "init", "--preset", "huge", "--out", dir / "m"},
           {"model", "init", "--preset", "tiny-v3"},
           {"model", "init", "--preset", "tiny-v3", "--out", dir / "m", "--seed", "-1"},
           {"model", "init", "--preset", "tiny-v3", "--out", dir / "m", "--seed", "x"},
           {"model", "init", "--preset", "tiny-v3", "--out", dir / "m", "--threads", "0"},
           {"model", "init", "--preset", "tiny-v3", "--out", dir / "m", "--shard-mb", "0"},
           {"model", "init", "--preset", "tiny-v3", "--out", "/proc/none/m"},
           {"model", "show"},
           {"model", "show", dir / "absent"},
           {"model", "show", dir / "line\nbreak"},
           {"model", "slices", dir / "absent", "--pools", "2"},
           {"model", "slices", dir / "absent", "--pools", "-1"}}) {
    SCOPED_TRACE(words.empty() ? "" : words.back());
    ExpectOneErrorLine(Expertmesh(words));
  }
  EXPECT_FALSE(std::filesystem::exists(dir / "m"));
}

}  // namespace
}  // namespace expertmesh::cli

// `expertmesh model export` as a user runs it. What the file holds: tests/model/writer.
#include <gtest/gtest.h>

#include <filesystem>
#include <sstream>
#include <string>
#include <vector>

#include "tests/cli/run_expertmesh.h"
#include "tests/support/temp_dir.h"

namespace expertmesh::cli {
namespace {

class ExportCommand : public testing::Test {
 protected:
  std::string Init(const std::string& preset) {
    EXPECT_EQ(Expertmesh({"model", "init", "--preset", preset, "--out", dir_ / preset}).code, 0);
    return dir_ / preset;
  }
  test_support::TempDir dir_;
};

TEST_F(ExportCommand, SaysWhatItWroteAndWhatOtherEnginesComputeDifferently) {
  const std::string model = Init("tiny-v3");
  const Outcome made = Expertmesh(
      {"model", "export", "--gguf", "--type", "q8_0", "--kv-b", "joined", model, dir_ / "m.gguf"});
  ASSERT_EQ(made.code, 0) << made.err;
  EXPECT_NE(made.out.find("q8_0, kv_b joined"), std::string::npos) << made.out;
  EXPECT_NE(made.err.find("rms_norm_eps"), std::string::npos) << made.err;
  EXPECT_TRUE(std::filesystem::exists(dir_ / "m.gguf"));
}

TEST_F(ExportCommand, RefusesInOneLine) {
  const std::string model = Init("tiny-v3");
  const std::string own_family = Init("tiny");
  const std::string out = dir_ / "m.gguf";
  const std::vector<std::pair<std::vector<std::string>, std::string>> refused = {
      {{own_family, out, "--gguf"}, "mHC"},
      {{model, out}, "--gguf"},
      {{model, out, "--gguf", "--type", "q4_0"}, "q4_0"},
      {{model, out, "--gguf", "--kv-b", "both"}, "both"},
      {{model, model, "--gguf"}, "exists"},
      {{dir_ / "none", out, "--gguf"}, "none"},
  };
  for (const auto& [words, why] : refused) {
    std::vector<std::string> all = {"model", "export"};
    all.insert(all.end(), words.begin(), words.end());
    const Outcome outcome = Expertmesh(all);
    EXPECT_NE(outcome.code, 0) << why;
    EXPECT_EQ(outcome.out, "") << why;
    EXPECT_NE(outcome.err.find(why), std::string::npos) << outcome.err;
    EXPECT_EQ(outcome.err.find('\n'), outcome.err.size() - 1) << outcome.err;
  }
  EXPECT_FALSE(std::filesystem::exists(out));
}

}  // namespace
}  // namespace expertmesh::cli

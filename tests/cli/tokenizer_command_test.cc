#include <gtest/gtest.h>

#include <algorithm>
#include <sstream>
#include <string>
#include <vector>

#include "cli/command_line.h"
#include "model/tokenizer/preset_writer.h"
#include "tests/support/temp_dir.h"

namespace expertmesh::cli {
namespace {

struct Outcome {
  int code;
  std::string out;
  std::string err;
};

class TokenizerCommand : public ::testing::Test {
 protected:
  void SetUp() override {
    test_support::WriteFile(dir_ / "tokenizer.json", model::PresetTokenizerJson(512).value());
  }

  Outcome Run(const std::string& action, std::vector<std::string> words) {
    std::vector<std::string> all = {"expertmesh", "tokenizer", action, "--model", dir_.path()};
    all.insert(all.end(), words.begin(), words.end());
    std::vector<const char*> argv;
    for (const std::string& word : all) argv.push_back(word.c_str());
    std::ostringstream out, err;
    const int code = RunCommandLine(static_cast<int>(argv.size()), argv.data(), out, err);
    return {code, out.str(), err.str()};
  }

  std::string File(const std::string& text) {
    test_support::WriteFile(dir_ / "input", text);
    return dir_ / "input";
  }

  test_support::TempDir dir_;
};

TEST_F(TokenizerCommand, ThereAndBack) {
  const Outcome encoded = Run("encode", {"--input", File("Hello, 世界\n\n  x")});
  ASSERT_EQ(encoded.code, 0) << encoded.err;
  EXPECT_EQ(std::count(encoded.out.begin(), encoded.out.end(), '\n'), 3);
  const Outcome decoded = Run("decode", {"--input", File(encoded.out)});
  EXPECT_EQ(decoded.out, "Hello, 世界\n\n  x\n") << decoded.err;
}

TEST_F(TokenizerCommand, TextsOnTheCommandLine) {
  const Outcome plain = Run("encode", {"<think>"});
  const Outcome special = Run("encode", {"<think>", "--special"});
  EXPECT_GT(plain.out.size(), special.out.size());
  EXPECT_EQ(Run("decode", {special.out.substr(0, special.out.size() - 1)}).out, "<think>\n");
}

TEST_F(TokenizerCommand, JsonAndTiming) {
  const Outcome encoded = Run("encode", {"--json", "--timing", "--input", File("\"a\\nb\"\n")});
  ASSERT_EQ(encoded.code, 0) << encoded.err;
  EXPECT_TRUE(encoded.out.starts_with("["));
  EXPECT_TRUE(encoded.err.starts_with("encoded 3 bytes into ")) << encoded.err;
  EXPECT_EQ(Run("decode", {"--json", "--input", File(encoded.out)}).out, "\"a\\nb\"\n");
}

TEST_F(TokenizerCommand, Chat) {
  const std::string line = R"({"thinking": true, "messages": [{"role": "user", "content": "q"}]})";
  const Outcome shown = Run("chat", {"--chat-encoding", "v3.1", "--input", File(line + "\n")});
  EXPECT_EQ(shown.out, "\"<｜begin▁of▁sentence｜><｜User｜>q<｜Assistant｜><think>\"\n")
      << shown.err;
}

TEST_F(TokenizerCommand, ErrorsAreOneLine) {
  const std::vector<std::pair<std::string, std::vector<std::string>>> cases = {
      {"encode", {"--input", dir_ / "nowhere"}},
      {"encode", {"--json", "--input", File("7\n")}},
      {"encode", {"a\xff"}},
      {"decode", {"x"}},
      {"chat", {"--chat-encoding", "v4"}},
      {"chat", {"--chat-encoding", "auto"}},  // there is no config.json
      {"chat", {"--chat-encoding", "v3", "--input", dir_ / "input"}}};
  for (const auto& [action, words] : cases) {
    const Outcome outcome = Run(action, words);
    EXPECT_EQ(outcome.code, 1) << action;
    EXPECT_EQ(outcome.out, "");
    EXPECT_EQ(std::count(outcome.err.begin(), outcome.err.end(), '\n'), 1) << outcome.err;
  }
}

}  // namespace
}  // namespace expertmesh::cli

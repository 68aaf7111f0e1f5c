#include "model/tokenizer/preset_writer.h"

#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <sstream>

#include "model/tokenizer/special_tokens.h"
#include "tests/model/tokenizer/tokenizer_fixture.h"

namespace expertmesh::model {
namespace {

std::string Slurp(const std::filesystem::path& path) {
  std::ostringstream text;
  text << std::ifstream(path, std::ios::binary).rdbuf();
  return text.str();
}

// The order of docs/model-family.md §9: named tokens, bytes, merges, placeholders; no id left out.
TEST(PresetWriter, IdsFollowTheFamilyPage) {
  for (const uint32_t vocab_size : {kPresetMinVocab, kSmallVocab, 4096u, 32000u}) {
    const auto tokenizer = PresetTokenizer(vocab_size);
    ASSERT_EQ(tokenizer->vocab_size(), vocab_size);
    EXPECT_EQ(tokenizer->IdOf("<｜begin▁of▁sentence｜>"), 0u);
    EXPECT_EQ(tokenizer->IdOf("<｜end▁of▁sentence｜>"), 1u);
    EXPECT_EQ(tokenizer->IdOf("<｜▁pad▁｜>"), 2u);
    for (uint32_t id = 3; id < special::kPresetTokens.size(); ++id) {
      EXPECT_EQ(tokenizer->IdOf(special::kPresetTokens[id]), id);
    }
    for (uint32_t byte = 0; byte < 256; ++byte) {
      EXPECT_EQ(tokenizer->TokenBytes(20 + byte), std::string(1, static_cast<char>(byte)));
    }
    const std::vector<bool> mask = tokenizer->PlaceholderMask(vocab_size);
    EXPECT_TRUE(std::is_sorted(mask.begin(), mask.end()));  // placeholders last
    for (uint32_t id = 0; id < vocab_size; ++id) EXPECT_NE(tokenizer->TokenBytes(id), "") << id;
  }
}

TEST(PresetWriter, MergesArePrefixesOfEachOther) {
  const auto small = PresetTokenizer(kSmallVocab);
  const auto large = PresetTokenizer(kLargeVocab);
  for (uint32_t id = 0; id < kSmallVocab; ++id) {
    EXPECT_EQ(small->TokenBytes(id), large->TokenBytes(id));
  }
  EXPECT_TRUE(small->IdOf("Ġthe").has_value());
  EXPECT_TRUE(large->IdOf("Ġexperts").has_value());
}

// The bytes are part of every preset's fingerprint: a change here is a change of the presets.
TEST(PresetWriter, SameBytesEverywhere) {
  EXPECT_EQ(PresetTokenizer(kSmallVocab)->Hash(),
            "8f84387636cca5c62f646e1ebc186ad6ec6a9fee9ecbdb66606a287fa4cdca38");
  EXPECT_EQ(PresetTokenizer(32000)->Hash(),
            "fb8ad9a498c4839fd7bcb34496af1a18f444a1883b0f72d0c2da7770e6b1bbc7");
}

TEST(PresetWriter, WritesADirectoryAndKeepsASpecialTokensMap) {
  const std::filesystem::path directory =
      std::filesystem::path(::testing::TempDir()) / ("preset_writer_" + std::to_string(::getpid()));
  std::filesystem::create_directories(directory);
  std::ofstream(directory / "special_tokens_map.json") << "mine";
  ASSERT_TRUE(WritePresetTokenizer(directory.string(), kSmallVocab).ok());
  EXPECT_EQ(Slurp(directory / "tokenizer.json"), PresetTokenizerJson(kSmallVocab).value() + "\n");
  EXPECT_EQ(Slurp(directory / "special_tokens_map.json"), "mine");
  const boost::json::value config = boost::json::parse(Slurp(directory / "tokenizer_config.json"));
  EXPECT_EQ(config.at("bos_token").as_string(), "<｜begin▁of▁sentence｜>");
  EXPECT_EQ(config.at("eos_token").as_string(), "<｜end▁of▁sentence｜>");
  std::filesystem::remove_all(directory);
}

TEST(PresetWriter, RefusesBadSizesAndPlaces) {
  for (const uint32_t vocab_size : {0u, kPresetMinVocab - 1, (1u << 20) + 1}) {
    EXPECT_EQ(base::ReasonOf(PresetTokenizerJson(vocab_size).status()),
              base::Reason::kInvalidArgument);
  }
  EXPECT_EQ(base::ReasonOf(WritePresetTokenizer("/nonexistent/place", kSmallVocab)),
            base::Reason::kInvalidArgument);
}

}  // namespace
}  // namespace expertmesh::model

#include "model/tokenizer/tokenizer.h"

#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <thread>

#include "model/tokenizer/special_tokens.h"
#include "model/tokenizer/utf8.h"
#include "tests/model/tokenizer/tokenizer_fixture.h"

namespace expertmesh::model {
namespace {

using ::testing::ElementsAre;

class PresetTest : public ::testing::TestWithParam<uint32_t> {
 protected:
  std::unique_ptr<Tokenizer> tokenizer_ = PresetTokenizer(GetParam());
};

TEST_P(PresetTest, RoundTrips) {
  for (const std::string& text : DiverseTexts()) {
    for (const bool parse_special : {false, true}) {
      const auto ids = tokenizer_->Encode(text, parse_special);
      ASSERT_TRUE(ids.ok()) << ids.status();
      EXPECT_EQ(tokenizer_->Decode(*ids, false), text);
      EXPECT_EQ(tokenizer_->Decode(*ids, true), text);
    }
  }
}

TEST_P(PresetTest, RoundTripsRandomUnicode) {
  std::mt19937 random(GetParam());
  for (int round = 0; round < 300; ++round) {
    std::string text;
    for (uint32_t n = random() % 40; n > 0; --n) {
      constexpr uint32_t kLimits[] = {0x80, 0x800, 0x3100, 0xD800, 0x1F700, 0x110000};
      const char32_t c = random() % kLimits[random() % 6];
      if (c < 0xD800 || c > 0xDFFF) AppendUtf8(c, text);
    }
    const auto ids = tokenizer_->Encode(text, false);
    ASSERT_TRUE(ids.ok()) << ids.status();
    ASSERT_EQ(tokenizer_->Decode(*ids, false), text);
  }
}

INSTANTIATE_TEST_SUITE_P(Sizes, PresetTest, ::testing::Values(276u, kSmallVocab, kLargeVocab));

// Compared with the `tokenizers` library on the same files.
TEST(Tokenizer, KnownTexts) {
  const auto small = PresetTokenizer(kSmallVocab);
  const auto large = PresetTokenizer(kLargeVocab);
  const std::string text = "Explain the world: 12 你好";
  EXPECT_THAT(Pieces(*small, *small->Encode(text, false)),
              ElementsAre("E", "x", "p", "la", "in", " the", " w", "or", "ld", ":", " ", "1", "2",
                          " ", "\xe4\xbd", "\xa0", "\xe5", "\xa5", "\xbd"));
  EXPECT_THAT(Pieces(*large, *large->Encode(text, false)),
              ElementsAre("Explain", " the", " world", ":", " ", "1", "2", " ", "你", "好"));
}

TEST(Tokenizer, NamesOfAddedTokensStayTextUnlessAskedFor) {
  const auto tokenizer = PresetTokenizer(kLargeVocab);
  for (const std::string_view name : special::kPresetTokens) {
    const std::string text = "a " + std::string(name) + " b";
    const auto as_text = tokenizer->Encode(text, false);
    ASSERT_TRUE(as_text.ok());
    for (const uint32_t id : *as_text) EXPECT_GE(id, special::kPresetTokens.size()) << name;
    EXPECT_EQ(tokenizer->Decode(*as_text, true), text);

    const auto as_token = tokenizer->Encode(text, true);
    EXPECT_THAT(*as_token, ::testing::Contains(*tokenizer->IdOf(name)));
    EXPECT_LT(as_token->size(), as_text->size());
    EXPECT_EQ(tokenizer->Decode(*as_token, false), text);
  }
}

TEST(Tokenizer, PlaceholdersAreNeverMadeFromText) {
  const auto tokenizer = PresetTokenizer(kLargeVocab);
  const std::string name = std::string(special::kPlaceholderPrefix) + "3｜>";
  const std::optional<uint32_t> id = tokenizer->IdOf(name);
  ASSERT_TRUE(id.has_value());
  for (const bool parse_special : {false, true}) {
    EXPECT_THAT(*tokenizer->Encode(name, parse_special), ::testing::Not(::testing::Contains(*id)));
  }
}

TEST(Tokenizer, LongestAddedTokenWinsAndFlagsTakeWhiteSpace) {
  const auto tokenizer = MakeTokenizer(ChangedJson([](boost::json::object& root) {
    const auto add = [&root](const char* content, int id, bool lstrip, bool rstrip) {
      root["added_tokens"].as_array().push_back({{"id", id},
                                                 {"content", content},
                                                 {"lstrip", lstrip},
                                                 {"rstrip", rstrip},
                                                 {"normalized", false},
                                                 {"special", true}});
    };
    add("<<a", 600, false, false);
    add("<<ab>", 601, false, false);
    add("<<left", 602, true, false);
    add("<<right", 603, false, true);
  }));
  const uint32_t x = *tokenizer->IdOf("x");
  const uint32_t space = *tokenizer->IdOf("Ġ");
  EXPECT_THAT(*tokenizer->Encode("<<a<<ab><<ax", true), ElementsAre(600, 601, 600, x));
  EXPECT_THAT(*tokenizer->Encode("x \u3000<<left x", true), ElementsAre(x, 602, space, x));
  EXPECT_THAT(*tokenizer->Encode("x <<right \n<<right ", true), ElementsAre(x, space, 603, 603));
}

TEST(Tokenizer, InvalidUtf8NamesTheByte) {
  const auto tokenizer = PresetTokenizer(kSmallVocab);
  const auto result = tokenizer->Encode("abc\xff", false);
  EXPECT_EQ(base::ReasonOf(result.status()), base::Reason::kInvalidArgument);
  EXPECT_THAT(std::string(result.status().message()), ::testing::HasSubstr("byte 3"));
  const std::string too_long(Tokenizer::kTextBytesMax + 1, 'a');
  EXPECT_EQ(base::ReasonOf(tokenizer->Encode(too_long, false).status()),
            base::Reason::kInvalidArgument);
}

TEST(Tokenizer, MaskCoversPlaceholdersHolesAndPadding) {
  const auto tokenizer = MakeTokenizer(ChangedJson([](boost::json::object& root) {
    boost::json::object& vocab = root["model"].as_object()["vocab"].as_object();
    vocab["<｜place▁holder▁no▁7｜>"] = 520;  // ids 512–519 are holes
  }));
  EXPECT_EQ(tokenizer->vocab_size(), 521u);
  const std::vector<bool> mask = tokenizer->PlaceholderMask(530);
  ASSERT_EQ(mask.size(), 530u);
  for (size_t id = 0; id < mask.size(); ++id) EXPECT_EQ(mask[id], id >= 512) << id;
  EXPECT_EQ(tokenizer->PlaceholderMask(100), std::vector<bool>(100, false));
}

TEST(Tokenizer, DecodeSkipsSpecialAndUnknownIds) {
  const auto tokenizer = PresetTokenizer(kSmallVocab);
  std::vector<uint32_t> ids = {0, *tokenizer->IdOf("a"), 99999, *tokenizer->IdOf("<think>"), 1};
  EXPECT_EQ(tokenizer->Decode(ids, true), "a<think>");
  EXPECT_EQ(tokenizer->Decode(ids, false), "<｜begin▁of▁sentence｜>a<think><｜end▁of▁sentence｜>");
  EXPECT_TRUE(tokenizer->IsSpecial(0));
  EXPECT_FALSE(tokenizer->IsSpecial(*tokenizer->IdOf("<think>")));
  EXPECT_FALSE(tokenizer->IsSpecial(99999));
  EXPECT_EQ(tokenizer->TokenBytes(99999), "");
  EXPECT_EQ(tokenizer->TokenBytes(*tokenizer->IdOf("Ġthe")), " the");
}

TEST(Tokenizer, LoadNamesTheFileAndHashesIt) {
  const std::filesystem::path directory = std::filesystem::path(::testing::TempDir()) /
                                          ("tokenizer_test_" + std::to_string(::getpid()));
  std::filesystem::create_directories(directory);
  EXPECT_THAT(std::string(Tokenizer::Load(directory.string()).status().message()),
              ::testing::HasSubstr("tokenizer.json"));
  ASSERT_TRUE(WritePresetTokenizer(directory.string(), kSmallVocab).ok());
  const auto loaded = Tokenizer::Load(directory.string());
  ASSERT_TRUE(loaded.ok()) << loaded.status();
  EXPECT_EQ((*loaded)->Hash().size(), 64u);
  const auto again = Tokenizer::Load(directory.string());
  EXPECT_EQ((*loaded)->Hash(), (*again)->Hash());

  std::ofstream(directory / "tokenizer.json") << "{";
  const auto broken = Tokenizer::Load(directory.string());
  EXPECT_EQ(base::ReasonOf(broken.status()), base::Reason::kBadTokenizer);
  EXPECT_THAT(std::string(broken.status().message()), ::testing::HasSubstr("tokenizer.json"));
  std::filesystem::remove_all(directory);
}

TEST(Tokenizer, ThreadsShareOneTokenizer) {
  const auto tokenizer = PresetTokenizer(kLargeVocab);
  std::vector<std::vector<uint32_t>> expected;
  for (const std::string& text : DiverseTexts()) {
    expected.push_back(*tokenizer->Encode(text, true));
  }
  std::vector<std::thread> threads;
  std::vector<int> wrong(4, 0);
  for (size_t t = 0; t < wrong.size(); ++t) {
    threads.emplace_back([&, t] {
      for (int round = 0; round < 20; ++round) {
        for (size_t i = 0; i < expected.size(); ++i) {
          wrong[t] += *tokenizer->Encode(DiverseTexts()[i], true) != expected[i];
        }
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_THAT(wrong, ::testing::Each(0));
}

}  // namespace
}  // namespace expertmesh::model

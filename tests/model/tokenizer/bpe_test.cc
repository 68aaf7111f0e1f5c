#include "model/tokenizer/bpe.h"

#include <map>
#include <random>

#include "gtest/gtest.h"
#include "model/tokenizer/byte_map.h"
#include "model/tokenizer/merge_trainer.h"
#include "model/tokenizer/preset_words.h"
#include "model/tokenizer/preset_writer.h"
#include "services/base/status.h"

namespace expertmesh::model {
namespace {

// The definition, slowly: look at all pairs, merge the lowest rank, start again.
class SlowBpe {
 public:
  explicit SlowBpe(const TokenizerSpec& spec) {
    for (const TokenEntry& token : spec.vocab) vocab_[token.content] = token.id;
    for (size_t rank = 0; rank < spec.merges.size(); ++rank) ranks_[spec.merges[rank]] = rank;
  }

  std::vector<uint32_t> Encode(std::string_view piece) const {
    std::vector<std::string> parts;
    for (const char byte : piece) parts.push_back(SpellBytes(std::string(1, byte)));
    for (;;) {
      size_t best = ranks_.size();
      size_t at = 0;
      for (size_t i = 0; i + 1 < parts.size(); ++i) {
        const auto it = ranks_.find({parts[i], parts[i + 1]});
        if (it != ranks_.end() && it->second < best) {
          best = it->second;
          at = i;
        }
      }
      if (best == ranks_.size()) break;
      parts[at] += parts[at + 1];
      parts.erase(parts.begin() + static_cast<ptrdiff_t>(at) + 1);
    }
    std::vector<uint32_t> ids;
    for (const std::string& part : parts) ids.push_back(vocab_.at(part));
    return ids;
  }

 private:
  std::map<std::string, uint32_t> vocab_;
  std::map<std::pair<std::string, std::string>, size_t> ranks_;
};

TokenizerSpec PresetSpec(uint32_t vocab_size) {
  return ParseTokenizerJson(PresetTokenizerJson(vocab_size).value()).value();
}

TEST(Bpe, EqualsTheSlowDefinition) {
  const std::vector<WeightedWord> words = PresetWords();
  std::mt19937 random(1);
  for (const uint32_t vocab_size : {276u, 512u, 5000u}) {
    const TokenizerSpec spec = PresetSpec(vocab_size);
    const SlowBpe slow(spec);
    const Bpe bpe = Bpe::Create(spec).value();
    Bpe::Scratch scratch;
    for (int round = 0; round < 300; ++round) {
      std::string piece;
      for (uint32_t n = random() % 8; n > 0; --n) {
        const std::string& word = words[random() % words.size()].bytes;
        piece += random() % 4 == 0 ? word.substr(random() % word.size()) : word;
        if (random() % 8 == 0) piece.push_back(static_cast<char>(random()));
      }
      std::vector<uint32_t> ids;
      bpe.Encode(piece, scratch, ids);
      ASSERT_EQ(ids, slow.Encode(piece)) << piece;
    }
  }
}

TEST(Bpe, EqualRanksMergeFromTheLeft) {
  TokenizerSpec spec = PresetSpec(kPresetMinVocab);
  spec.vocab.push_back({"aa", 300});
  spec.merges = {{"a", "a"}};
  const Bpe bpe = Bpe::Create(spec).value();
  Bpe::Scratch scratch;
  std::vector<uint32_t> ids;
  bpe.Encode("aaaaa", scratch, ids);
  ASSERT_EQ(ids.size(), 3u);
  EXPECT_EQ(ids[0], 300u);
  EXPECT_EQ(ids[1], 300u);
}

TEST(Bpe, LongPiecesAreNotQuadratic) {
  const Bpe bpe = Bpe::Create(PresetSpec(5000)).value();
  Bpe::Scratch scratch;
  std::vector<uint32_t> ids;
  std::string piece;
  while (piece.size() < 2'000'000) piece += "thequickbrownfox";
  bpe.Encode(piece, scratch, ids);  // quadratic work would run into the test's time limit
  EXPECT_GT(ids.size(), piece.size() / 16);
}

TEST(Bpe, WholePiecesFirstIfTheFileSaysSo) {
  TokenizerSpec spec = PresetSpec(kPresetMinVocab);
  spec.vocab.push_back({"Ġxyz", 400});  // no merge makes it
  Bpe::Scratch scratch;
  std::vector<uint32_t> ids;
  Bpe::Create(spec)->Encode(" xyz", scratch, ids);
  EXPECT_EQ(ids.size(), 4u);
  spec.ignore_merges = true;
  ids.clear();
  Bpe::Create(spec)->Encode(" xyz", scratch, ids);
  EXPECT_EQ(ids, std::vector<uint32_t>{400});
}

TEST(Bpe, RefusesUnknownTokensInMergesAndMissingBytes) {
  TokenizerSpec spec = PresetSpec(kPresetMinVocab);
  spec.merges.push_back({"a", "b"});  // "ab" is no token
  EXPECT_EQ(base::ReasonOf(Bpe::Create(spec).status()), base::Reason::kBadTokenizer);
  spec = PresetSpec(kPresetMinVocab);
  std::erase_if(spec.vocab, [](const TokenEntry& token) { return token.content == "Ā"; });
  EXPECT_EQ(base::ReasonOf(Bpe::Create(spec).status()), base::Reason::kBadTokenizer);
}

TEST(MergeTrainer, TakesTheHeaviestPairAndStopsWhenNothingIsLeft) {
  const TrainedMerges trained = TrainMerges({{"abc", 5}, {"bc", 4}, {"ab", 1}}, 10);
  ASSERT_EQ(trained.merges.size(), 3u);  // bc (9), then a+bc (5), then ab (1)
  EXPECT_EQ(trained.symbols[256], "bc");
  EXPECT_EQ(trained.symbols[257], "abc");
  EXPECT_EQ(trained.symbols[258], "ab");
  EXPECT_EQ(TrainMerges({{"abc", 5}}, 1).symbols.size(), 257u);
}

TEST(MergeTrainer, OneSymbolForOneSpelling) {
  // "abc" arises as ab+c and as a+bc.
  const TrainedMerges trained =
      TrainMerges({{"ab", 100}, {"abc", 1}, {"bc", 90}, {"xbc", 50}, {"xabcy", 1}, {"a", 1}}, 20);
  std::map<std::string, int> spellings;
  for (const std::string& symbol : trained.symbols) EXPECT_EQ(++spellings[symbol], 1) << symbol;
}

}  // namespace
}  // namespace expertmesh::model

#include "model/tokenizer/detokenizer.h"

#include "model/tokenizer/byte_map.h"
#include "model/tokenizer/utf8.h"
#include "tests/model/tokenizer/tokenizer_fixture.h"

namespace expertmesh::model {
namespace {

using ::testing::ElementsAre;

class DetokenizerTest : public ::testing::Test {
 protected:
  // The ids of single bytes.
  std::vector<uint32_t> Bytes(std::string_view bytes) const {
    std::vector<uint32_t> ids;
    for (const char byte : bytes) ids.push_back(*tokenizer_->IdOf(SpellBytes({&byte, 1})));
    return ids;
  }

  // What each push gave, then what the flush gave.
  std::vector<std::string> PushAll(const std::vector<uint32_t>& ids, bool skip_special) const {
    Detokenizer detokenizer(*tokenizer_, skip_special);
    std::vector<std::string> parts;
    for (const uint32_t id : ids) parts.push_back(detokenizer.Push(id));
    parts.push_back(detokenizer.Flush());
    EXPECT_EQ(detokenizer.Flush(), "");
    return parts;
  }

  std::unique_ptr<Tokenizer> tokenizer_ = PresetTokenizer(kLargeVocab);
};

TEST_F(DetokenizerTest, HoldsBackOpenCharacters) {
  EXPECT_THAT(PushAll(Bytes("aé你😀"), false),
              ElementsAre("a", "", "é", "", "", "你", "", "", "", "😀", ""));
}

TEST_F(DetokenizerTest, ReplacesWhatCannotBecomeACharacter) {
  EXPECT_THAT(PushAll(Bytes("\xe4\xbd"
                            "a"),
                      false),
              ElementsAre("", "", "\ufffda", ""));
  EXPECT_THAT(PushAll(Bytes("\xf0\x9f\xf0\x9f\x98\x80"), false),
              ElementsAre("", "", "\ufffd", "", "", "😀", ""));
  EXPECT_THAT(PushAll(Bytes("\x80\xed\xa0"), false), ElementsAre("\ufffd", "", "\ufffd\ufffd", ""));
  EXPECT_THAT(PushAll(Bytes("x\xe4\xbd"), false), ElementsAre("x", "", "", "\ufffd"));
}

TEST_F(DetokenizerTest, SpecialTokensCloseNothingWhenSkipped) {
  std::vector<uint32_t> ids = Bytes("\xe4\xbd\xa0");
  ids.insert(ids.begin() + 2, 1);  // EOS between the bytes of a character
  EXPECT_THAT(PushAll(ids, true), ElementsAre("", "", "", "你", ""));
  EXPECT_THAT(PushAll(ids, false),
              ElementsAre("", "", "\ufffd<｜end▁of▁sentence｜>", "\ufffd", ""));
}

TEST_F(DetokenizerTest, EveryIdAloneEqualsDecode) {
  for (uint32_t id = 0; id < tokenizer_->vocab_size() + 3; ++id) {
    for (const bool skip_special : {false, true}) {
      std::string joined;
      for (const std::string& part : PushAll({id}, skip_special)) joined += part;
      ASSERT_EQ(joined, tokenizer_->Decode(std::vector<uint32_t>{id}, skip_special)) << id;
    }
  }
}

TEST_F(DetokenizerTest, RandomIdsEqualDecodeAndEveryPartIsUtf8) {
  std::mt19937 random(3);
  for (int round = 0; round < 3000; ++round) {
    std::vector<uint32_t> ids;
    const uint32_t limit =
        round % 2 == 0 ? 276 : kLargeVocab + 2;  // every other round mostly bytes
    for (uint32_t n = random() % 30; n > 0; --n) ids.push_back(random() % limit);
    const bool skip_special = random() % 2 == 0;
    std::string joined;
    for (const std::string& part : PushAll(ids, skip_special)) {
      ASSERT_EQ(FindInvalidUtf8(part), std::nullopt);
      joined += part;
    }
    ASSERT_EQ(joined, tokenizer_->Decode(ids, skip_special));
  }
}

TEST_F(DetokenizerTest, StreamsTextsWhole) {
  for (const std::string& text : DiverseTexts()) {
    std::string joined;
    for (const std::string& part : PushAll(*tokenizer_->Encode(text, false), true)) joined += part;
    EXPECT_EQ(joined, text);
  }
}

}  // namespace
}  // namespace expertmesh::model

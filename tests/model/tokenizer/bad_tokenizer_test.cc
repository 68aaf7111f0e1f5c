// tokenizer.json from anywhere: errors, never crashes.
#include "tests/model/tokenizer/tokenizer_fixture.h"

namespace expertmesh::model {
namespace {

namespace json = boost::json;

using Change = std::function<void(json::object&)>;

json::object& Model(json::object& root) { return root["model"].as_object(); }
json::object& Vocab(json::object& root) { return Model(root)["vocab"].as_object(); }
json::array& Added(json::object& root) { return root["added_tokens"].as_array(); }
json::array& Steps(json::object& root) {
  return root["pre_tokenizer"].as_object()["pretokenizers"].as_array();
}

struct BadFile {
  const char* what;
  Change change;
};

const BadFile kBadFiles[] = {
    {"no model", [](json::object& root) { root.erase("model"); }},
    {"model is a list", [](json::object& root) { root["model"] = json::array(); }},
    {"not BPE", [](json::object& root) { Model(root)["type"] = "Unigram"; }},
    {"no vocab", [](json::object& root) { Model(root).erase("vocab"); }},
    {"vocab is a list", [](json::object& root) { Model(root)["vocab"] = json::array(); }},
    {"id is a string", [](json::object& root) { Vocab(root)["a"] = "7"; }},
    {"id is negative", [](json::object& root) { Vocab(root)["a"] = -1; }},
    {"id is a fraction", [](json::object& root) { Vocab(root)["a"] = 1.5; }},
    {"id is huge", [](json::object& root) { Vocab(root)["a"] = 1u << 20; }},
    {"id twice", [](json::object& root) { Vocab(root)["zzzz"] = Vocab(root)["a"]; }},
    {"byte without token", [](json::object& root) { Vocab(root).erase("a"); }},
    {"no merges", [](json::object& root) { Model(root).erase("merges"); }},
    {"merge of one", [](json::object& root) { Model(root)["merges"] = {"ab"}; }},
    {"merge of three", [](json::object& root) { Model(root)["merges"] = {"a b c"}; }},
    {"merge of numbers",
     [](json::object& root) {
       Model(root)["merges"] = json::array{json::array{1, 2}};
     }},
    {"merge of unknown tokens", [](json::object& root) { Model(root)["merges"] = {"q zzz"}; }},
    {"merge without result", [](json::object& root) { Model(root)["merges"] = {"q q"}; }},
    {"dropout", [](json::object& root) { Model(root)["dropout"] = 0.1; }},
    {"word suffix", [](json::object& root) { Model(root)["end_of_word_suffix"] = "</w>"; }},
    {"added tokens are an object",
     [](json::object& root) { root["added_tokens"] = json::object(); }},
    {"added token without id", [](json::object& root) { Added(root)[0].as_object().erase("id"); }},
    {"added token is empty",
     [](json::object& root) { Added(root)[0].as_object()["content"] = ""; }},
    {"added token takes an id", [](json::object& root) { Added(root)[0].as_object()["id"] = 30; }},
    {"two added tokens, one id",
     [](json::object& root) {
       Added(root).push_back({{"id", 600}, {"content", "<x>"}});
       Added(root).push_back({{"id", 600}, {"content", "<y>"}});
     }},
    {"flag is a number", [](json::object& root) { Added(root)[0].as_object()["special"] = 1; }},
    {"single word", [](json::object& root) { Added(root)[0].as_object()["single_word"] = true; }},
    {"normalizer",
     [](json::object& root) {
       root["normalizer"] = {{"type", "NFC"}};
     }},
    {"decoder",
     [](json::object& root) {
       root["decoder"] = {{"type", "WordPiece"}};
     }},
    {"no pre-tokenizer", [](json::object& root) { root["pre_tokenizer"] = nullptr; }},
    {"unknown pre-tokenizer",
     [](json::object& root) {
       root["pre_tokenizer"] = {{"type", "Metaspace"}};
     }},
    {"unknown step",
     [](json::object& root) {
       Steps(root)[0] = {{"type", "Whitespace"}};
     }},
    {"no ByteLevel", [](json::object& root) { Steps(root).pop_back(); }},
    {"ByteLevel twice", [](json::object& root) { Steps(root)[0] = Steps(root)[3]; }},
    {"no steps", [](json::object& root) { Steps(root).clear(); }},
    {"prefix space",
     [](json::object& root) { Steps(root)[3].as_object()["add_prefix_space"] = true; }},
    {"unknown behavior",
     [](json::object& root) { Steps(root)[0].as_object()["behavior"] = "Odd"; }},
    {"bad expression",
     [](json::object& root) {
       Steps(root)[0].as_object()["pattern"] = {{"Regex", "[a"}};
     }},
    {"no expression",
     [](json::object& root) {
       Steps(root)[0].as_object()["pattern"] = {{"Glob", "*"}};
     }},
};

TEST(BadTokenizer, EveryContradictionIsOneLine) {
  for (const BadFile& file : kBadFiles) {
    const absl::StatusOr<std::unique_ptr<Tokenizer>> result =
        Tokenizer::FromJson(ChangedJson(file.change));
    EXPECT_EQ(base::ReasonOf(result.status()), base::Reason::kBadTokenizer) << file.what;
    EXPECT_THAT(std::string(result.status().message()), ::testing::Not(::testing::HasSubstr("\n")))
        << file.what;
  }
}

// What is not supported is named, and what is instead.
TEST(BadTokenizer, SaysWhatIsSupported) {
  struct Case {
    Change change;
    const char* names;
    const char* supported;
  };
  const Case cases[] = {
      {[](json::object& root) { Model(root)["type"] = "Unigram"; }, "Unigram", "supported is BPE"},
      {[](json::object& root) {
         root["pre_tokenizer"] = {{"type", "Metaspace"}};
       },
       "Metaspace", "supported are Sequence, Split, Digits, ByteLevel"},
      {[](json::object& root) {
         root["normalizer"] = {{"type", "NFC"}};
       },
       "NFC", "supported is none"},
      {[](json::object& root) {
         root["decoder"] = {{"type", "WordPiece"}};
       },
       "WordPiece", "supported is ByteLevel"}};
  for (const Case& test : cases) {
    const std::string message(Tokenizer::FromJson(ChangedJson(test.change)).status().message());
    EXPECT_THAT(message, ::testing::HasSubstr(test.names));
    EXPECT_THAT(message, ::testing::HasSubstr(test.supported));
  }
}

TEST(BadTokenizer, NotADocument) {
  for (const char* text : {"", "null", "[]", "{}", "{\"model\":", "\xff\xfe", "{\"a\":1}x"}) {
    EXPECT_EQ(base::ReasonOf(Tokenizer::FromJson(text).status()), base::Reason::kBadTokenizer)
        << text;
  }
  const std::string deep(100'000, '[');
  EXPECT_EQ(base::ReasonOf(Tokenizer::FromJson(deep).status()), base::Reason::kBadTokenizer);
}

// What a fuzzer does, with a fixed seed: a damaged file either is refused or gives a tokenizer that
// encodes and decodes without harm.
TEST(BadTokenizer, DamagedFilesDoNoHarm) {
  const std::string whole = PresetTokenizerJson(kPresetMinVocab + 30).value();
  std::mt19937 random(5);
  int accepted = 0;
  for (int round = 0; round < 400; ++round) {
    std::string damaged = whole;
    for (uint32_t n = 1 + random() % 3; n > 0; --n) {
      const size_t at = random() % damaged.size();
      switch (random() % 4) {
        case 0:
          damaged[at] = static_cast<char>(random());
          break;
        case 1:
          damaged.erase(at, 1 + random() % 4);
          break;
        case 2:
          damaged.insert(at, damaged.substr(random() % damaged.size(), random() % 16));
          break;
        default:
          damaged[at] = static_cast<char>('0' + random() % 10);
          break;
      }
    }
    if (random() % 10 == 0) damaged.resize(random() % damaged.size());
    const auto tokenizer = Tokenizer::FromJson(damaged);
    if (!tokenizer.ok()) {
      EXPECT_EQ(base::ReasonOf(tokenizer.status()), base::Reason::kBadTokenizer);
      continue;
    }
    ++accepted;
    for (const std::string& text : DiverseTexts()) {
      const auto ids = (*tokenizer)->Encode(text, round % 2 == 0);
      if (!ids.ok()) continue;
      for (const uint32_t id : *ids) EXPECT_LT(id, (*tokenizer)->vocab_size());
      (*tokenizer)->Decode(*ids, false);
    }
  }
  EXPECT_GT(accepted, 10);
}

}  // namespace
}  // namespace expertmesh::model

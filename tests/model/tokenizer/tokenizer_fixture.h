// Tokenizers for tests: the preset's, and the preset's file with something changed.
#pragma once

#include <boost/json/object.hpp>
#include <boost/json/parse.hpp>
#include <boost/json/serialize.hpp>
#include <functional>
#include <memory>
#include <random>
#include <string>
#include <string_view>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "model/tokenizer/preset_writer.h"
#include "model/tokenizer/tokenizer.h"
#include "services/base/status.h"

namespace expertmesh::model {

inline constexpr uint32_t kSmallVocab = 512;
inline constexpr uint32_t kLargeVocab = 5000;  // holds all merges and some placeholders

inline std::unique_ptr<Tokenizer> MakeTokenizer(const std::string& json) {
  absl::StatusOr<std::unique_ptr<Tokenizer>> tokenizer = Tokenizer::FromJson(json);
  EXPECT_TRUE(tokenizer.ok()) << tokenizer.status();
  return std::move(tokenizer).value();
}

inline std::unique_ptr<Tokenizer> PresetTokenizer(uint32_t vocab_size) {
  return MakeTokenizer(PresetTokenizerJson(vocab_size).value());
}

/// The small preset's tokenizer.json after `change`.
inline std::string ChangedJson(const std::function<void(boost::json::object&)>& change) {
  boost::json::object root =
      boost::json::parse(PresetTokenizerJson(kSmallVocab).value()).as_object();
  change(root);
  return boost::json::serialize(root);
}

/// Tokens as their spelling in the text, one string per id.
inline std::vector<std::string> Pieces(const Tokenizer& tokenizer,
                                       const std::vector<uint32_t>& ids) {
  std::vector<std::string> pieces;
  for (const uint32_t id : ids) pieces.emplace_back(tokenizer.TokenBytes(id));
  return pieces;
}

inline const std::vector<std::string>& DiverseTexts() {
  static const std::vector<std::string> texts = {
      "",
      " ",
      "Hello, world!",
      "Explain MoE architecture",
      "The quick brown fox jumps over 13 lazy dogs; 1234567 times, 3.14159.",
      "def f(x):\n    return [x**2 for _ in range(10)]\n\n\tif x != 0: pass\r\n",
      "#include <vector>\nint main() { return a->b[3] << 2; } // done",
      "{\"key\": [1, 2.5, null, \"\\u00e9\"]}",
      "你好，世界！混合专家模型有512个专家。",
      "こんにちは、カタカナとひらがな。",
      "한국어 문장입니다.",
      "Привет, мир! Ёлки-палки.",
      "مرحبا بالعالم، ١٢٣",
      "नमस्ते दुनिया",
      "שלום עולם",
      "Ελληνικά, naïve façade, Straße, e\u0301",
      "emoji 😀👍🏽👩‍👩‍👧 and ❤️",
      "  leading, trailing  \n\n\n   and    inner   ",
      "\u00a0\u2003\u3000\u0085wide spaces",
      "½ Ⅷ ３４５ ²",
      std::string("nul\0inside", 10),
      "\ufffd \ufeff \u200b",
  };
  return texts;
}

}  // namespace expertmesh::model

// A model without sense: any allowed token, each as likely. Whatever it says must fit the grammar.
#pragma once

#include <optional>
#include <random>
#include <string>
#include <vector>

#include "model/grammar/matcher.h"
#include "model/tokenizer/preset_writer.h"
#include "model/tokenizer/tokenizer.h"

namespace expertmesh::test_support {

inline constexpr uint32_t kTestVocab = 1024;

inline const model::Tokenizer& TestTokenizer() {
  static const auto tokenizer =
      model::Tokenizer::FromJson(model::PresetTokenizerJson(kTestVocab).value()).value();
  return *tokenizer;
}
inline const model::TokenTrie& TestTrie() {
  static const model::TokenTrie trie(TestTokenizer(), kTestVocab);
  return trie;
}

struct RandomAnswer {
  std::string text;
  std::vector<uint32_t> tokens;
  bool complete = false;
};

/// Up to `budget` tokens. `eager`: ends as soon as it may. The end token counts as one.
inline RandomAnswer AnswerAtRandom(model::Matcher& matcher, uint64_t budget, uint64_t seed,
                                   bool eager) {
  std::mt19937_64 random(seed);
  RandomAnswer answer;
  while (answer.tokens.size() < budget && !matcher.finished()) {
    const model::TokenSet allowed = matcher.Allowed(budget - answer.tokens.size());
    std::vector<uint32_t> choices;
    for (uint32_t id = 0; id < allowed.size(); ++id) {
      if (allowed.Has(id)) choices.push_back(id);
    }
    if (choices.empty() || (matcher.complete() && (eager || random() % 4 == 0))) break;
    const uint32_t id = choices[random() % choices.size()];
    if (!matcher.Accept(id)) break;  // seen as an answer that is not complete
    answer.tokens.push_back(id);
    answer.text += TestTokenizer().TokenBytes(id);
  }
  answer.complete = matcher.complete();
  return answer;
}

}  // namespace expertmesh::test_support

// JSON schemas: any bytes give a grammar or an error, soon; a random walk through the grammar never
// gets stuck and its text is JSON.
#include <cstdint>
#include <string>
#include <string_view>

#include "model/grammar/matcher.h"
#include "model/grammar/schema.h"
#include "model/tokenizer/exact_json.h"
#include "model/tokenizer/preset_writer.h"
#include "tests/fuzz/fuzz.h"

namespace fuzz = expertmesh::fuzz;
namespace model = expertmesh::model;

namespace {

const model::TokenTrie& Vocabulary() {
  static const auto tokenizer =
      model::Tokenizer::FromJson(model::PresetTokenizerJson(model::kPresetMinVocab).value())
          .value();
  static const model::TokenTrie trie(*tokenizer, model::kPresetMinVocab);
  return trie;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const auto grammar = model::CompileSchema(text);
  if (!grammar.ok()) return 0;
  model::Matcher matcher(*grammar, Vocabulary());
  constexpr uint64_t kTokensMax = 200;
  if (matcher.shortest_rest() + 1 > kTokensMax) return 0;
  uint32_t random = static_cast<uint32_t>(size) * 2654435761u;
  std::string answer;
  for (uint64_t left = kTokensMax; left > 1 && !matcher.finished(); --left) {
    const model::TokenSet allowed = matcher.Allowed(left);
    const size_t count = allowed.Count();
    if (count == 0 && matcher.complete()) break;
    fuzz::Require(count > 0, "never stuck");
    random = random * 1664525u + 1013904223u;
    size_t skip = (random >> 8) % count;
    for (uint32_t id = 0; id < allowed.size(); ++id) {
      if (!allowed.Has(id) || skip-- > 0) continue;
      answer += Vocabulary().bytes(id);
      fuzz::Require(matcher.Accept(id), "what is allowed is taken");
      break;
    }
  }
  fuzz::Require(matcher.complete(), "it ends within the tokens left");
  boost::system::error_code error;
  boost::json::parse_options options;
  options.max_depth = 1000;
  boost::json::value value;
  model::ParseExactJson(answer, options, {}, value, error);
  fuzz::Require(!error, "the answer is JSON");
  return 0;
}

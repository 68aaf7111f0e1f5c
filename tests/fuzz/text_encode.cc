// Text → ids → text with the preset's tokenizer: UTF-8 comes back as it was, anything else is
// refused.
#include <memory>
#include <string>

#include "model/tokenizer/detokenizer.h"
#include "model/tokenizer/preset_writer.h"
#include "model/tokenizer/tokenizer.h"
#include "model/tokenizer/utf8.h"
#include "services/base/status.h"
#include "tests/fuzz/fuzz.h"

namespace expertmesh::fuzz {
namespace {

const model::Tokenizer& PresetTokenizer() {
  static const std::unique_ptr<model::Tokenizer> tokenizer =
      model::Tokenizer::FromJson(model::PresetTokenizerJson(512).value()).value();
  return *tokenizer;
}

std::string InPieces(const model::Tokenizer& tokenizer, const std::vector<uint32_t>& ids) {
  model::Detokenizer detokenizer(tokenizer, false);
  std::string text;
  for (const uint32_t id : ids) text += detokenizer.Push(id);
  return text + detokenizer.Flush();
}

}  // namespace
}  // namespace expertmesh::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace expertmesh;
  const model::Tokenizer& tokenizer = fuzz::PresetTokenizer();
  const std::string_view text = fuzz::Text(data, size);
  for (const bool parse_special : {false, true}) {
    auto ids = tokenizer.Encode(text, parse_special);
    if (!ids.ok()) {
      fuzz::Require(base::ReasonOf(ids.status()) == base::Reason::kInvalidArgument, "reason");
      continue;
    }
    fuzz::Require(tokenizer.Decode(*ids, false) == text, "round trip");
    fuzz::Require(fuzz::InPieces(tokenizer, *ids) == text, "the same in pieces");
  }
  // Arbitrary ids: always valid UTF-8, whole or in pieces.
  std::vector<uint32_t> ids;
  for (size_t i = 0; i + 1 < size; i += 2) ids.push_back(data[i] + 256u * (data[i + 1] % 4));
  const std::string decoded = tokenizer.Decode(ids, false);
  fuzz::Require(decoded == fuzz::InPieces(tokenizer, ids), "pieces of arbitrary ids");
  fuzz::Require(decoded.empty() || tokenizer.Encode(decoded, false).ok(), "decoded text is UTF-8");
  return 0;
}

// tokenizer.json: an error, or a tokenizer that encodes and decodes without harm.
#include <string>

#include "model/tokenizer/tokenizer.h"
#include "services/base/status.h"
#include "tests/fuzz/fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace expertmesh;
  auto tokenizer = model::Tokenizer::FromJson(fuzz::Text(data, size));
  if (!tokenizer.ok()) {
    fuzz::Require(base::ReasonOf(tokenizer.status()) == base::Reason::kBadTokenizer, "reason");
    return 0;
  }
  constexpr std::string_view kText = "Hello, Wörld!  12345\n\n日本語 <x>\t🙂 ends";
  for (const bool parse_special : {false, true}) {
    auto ids = (*tokenizer)->Encode(kText, parse_special);
    if (!ids.ok()) continue;
    for (const uint32_t id : *ids) fuzz::Require(id < (*tokenizer)->vocab_size(), "id in range");
    (*tokenizer)->Decode(*ids, true);
  }
  return 0;
}

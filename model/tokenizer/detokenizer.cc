#include "model/tokenizer/detokenizer.h"

#include "model/tokenizer/utf8.h"

namespace expertmesh::model {
namespace {

constexpr std::string_view kReplacement = "\xef\xbf\xbd";  // U+FFFD

}  // namespace

std::string Detokenizer::Push(uint32_t id) {
  if (skip_special_ && tokenizer_->IsSpecial(id)) return {};
  const std::string bytes = open_ + std::string(tokenizer_->TokenBytes(id));
  open_.clear();
  std::string text;
  for (std::string_view rest = bytes; !rest.empty();) {
    const Utf8Char character = DecodeUtf8(rest);
    if (character.truncated) {
      open_ = rest;
      break;
    }
    text += character.valid ? rest.substr(0, character.length) : kReplacement;
    rest.remove_prefix(character.length);
  }
  return text;
}

std::string Detokenizer::Flush() {
  if (open_.empty()) return {};
  open_.clear();
  return std::string(kReplacement);
}

}  // namespace expertmesh::model

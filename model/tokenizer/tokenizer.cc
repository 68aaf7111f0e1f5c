#include "model/tokenizer/tokenizer.h"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"
#include "model/tokenizer/added_tokens.h"
#include "model/tokenizer/bpe.h"
#include "model/tokenizer/byte_map.h"
#include "model/tokenizer/detokenizer.h"
#include "model/tokenizer/pre_tokenizer.h"
#include "model/tokenizer/special_tokens.h"
#include "model/tokenizer/utf8.h"
#include "services/base/hash.h"
#include "services/base/status.h"

namespace expertmesh::model {
namespace {

constexpr uintmax_t kFileBytesMax = 256u << 20;

absl::StatusOr<std::string> ReadFile(const std::filesystem::path& path) {
  std::error_code error;
  const uintmax_t size = std::filesystem::file_size(path, error);
  if (error) return BadTokenizer(absl::StrCat("cannot read the file: ", error.message()));
  if (size > kFileBytesMax) {
    return BadTokenizer(absl::StrCat(size, " bytes, more than ", kFileBytesMax));
  }
  std::string text(size, '\0');
  std::ifstream file(path, std::ios::binary);
  file.read(text.data(), static_cast<std::streamsize>(size));
  if (!file) return BadTokenizer("cannot read the file");
  return text;
}

}  // namespace

struct Tokenizer::Impl {
  struct Token {
    std::string content;  // as the file spells it
    std::string bytes;
    bool known = false;
    bool special = false;
    bool added = false;
  };

  Impl(PreTokenizer pre_tokenizer_in, Bpe bpe_in, const std::vector<AddedToken>& added)
      : pre_tokenizer(std::move(pre_tokenizer_in)),
        bpe(std::move(bpe_in)),
        raw_added(added, false),
        normalized_added(added, true) {}

  absl::Status AddToken(const std::string& content, uint32_t id, bool special);
  std::vector<TextSection> Sections(std::string_view text, bool parse_special) const;

  PreTokenizer pre_tokenizer;
  Bpe bpe;
  AddedTokenMatcher raw_added;
  AddedTokenMatcher normalized_added;
  std::vector<Token> tokens;  // by id
  absl::flat_hash_map<std::string, uint32_t> ids;
  std::string hash;
};

absl::Status Tokenizer::Impl::AddToken(const std::string& content, uint32_t id, bool special) {
  const auto [it, is_new] = ids.emplace(content, id);
  if (it->second != id) {
    return BadTokenizer(
        absl::StrCat("token ", ShowToken(content), " has two ids, ", it->second, " and ", id));
  }
  if (id >= tokens.size()) tokens.resize(id + 1);
  Token& token = tokens[id];
  if (token.known && token.content != content) {
    return BadTokenizer(absl::StrCat("id ", id, " is claimed by ", ShowToken(token.content),
                                     " and by ", ShowToken(content)));
  }
  token.content = content;
  // Names with characters that stand for no byte are their own text: "<｜User｜>".
  token.bytes = UnspellBytes(content).value_or(content);
  token.known = true;
  token.special = special;
  return absl::OkStatus();
}

std::vector<TextSection> Tokenizer::Impl::Sections(std::string_view text,
                                                   bool parse_special) const {
  if (!parse_special) return {{text, std::nullopt}};
  std::vector<TextSection> first;
  raw_added.Split(text, first);
  std::vector<TextSection> sections;
  for (const TextSection& section : first) {
    if (section.id.has_value()) {
      sections.push_back(section);
    } else {
      normalized_added.Split(section.text, sections);
    }
  }
  return sections;
}

Tokenizer::Tokenizer(std::unique_ptr<const Impl> impl) : impl_(std::move(impl)) {}
Tokenizer::~Tokenizer() = default;

absl::StatusOr<std::unique_ptr<Tokenizer>> Tokenizer::Load(const std::string& directory) {
  const std::filesystem::path path = std::filesystem::path(directory) / "tokenizer.json";
  absl::StatusOr<std::string> text = ReadFile(path);
  if (!text.ok()) return base::Annotate(text.status(), path.string() + ": ");
  absl::StatusOr<std::unique_ptr<Tokenizer>> tokenizer = FromJson(*text);
  if (!tokenizer.ok()) return base::Annotate(tokenizer.status(), path.string() + ": ");
  return tokenizer;
}

absl::StatusOr<std::unique_ptr<Tokenizer>> Tokenizer::FromJson(std::string_view text) {
  EM_ASSIGN_OR_RETURN(const TokenizerSpec spec, ParseTokenizerJson(text));
  EM_ASSIGN_OR_RETURN(PreTokenizer pre_tokenizer, PreTokenizer::Create(spec.splits));
  EM_ASSIGN_OR_RETURN(Bpe bpe, Bpe::Create(spec));
  auto impl = std::make_unique<Impl>(std::move(pre_tokenizer), std::move(bpe), spec.added_tokens);
  for (const TokenEntry& token : spec.vocab) {
    EM_RETURN_IF_ERROR(impl->AddToken(token.content, token.id, false));
  }
  for (const AddedToken& token : spec.added_tokens) {
    EM_RETURN_IF_ERROR(impl->AddToken(token.content, token.id, token.special));
    impl->tokens[token.id].added = true;
  }
  base::Sha256 hash;
  hash.Update(text);
  impl->hash = base::Hex(hash.Finish());
  return std::unique_ptr<Tokenizer>(new Tokenizer(std::move(impl)));
}

absl::StatusOr<std::vector<uint32_t>> Tokenizer::Encode(std::string_view utf8,
                                                        bool parse_special) const {
  if (utf8.size() > kTextBytesMax) {
    return base::Error(base::Reason::kInvalidArgument,
                       absl::StrCat("text of ", utf8.size(), " bytes: at most ", kTextBytesMax,
                                    " can be encoded at once"));
  }
  if (const std::optional<size_t> offset = FindInvalidUtf8(utf8); offset.has_value()) {
    return base::Error(base::Reason::kInvalidArgument,
                       absl::StrCat("text is not UTF-8 at byte ", *offset));
  }
  MatchScratch match_scratch;
  Bpe::Scratch bpe_scratch;
  std::vector<std::string_view> pieces;
  std::vector<uint32_t> ids;
  for (const TextSection& section : impl_->Sections(utf8, parse_special)) {
    if (section.id.has_value()) {
      ids.push_back(*section.id);
      continue;
    }
    EM_RETURN_IF_ERROR(impl_->pre_tokenizer.Split(section.text, match_scratch, pieces));
    for (const std::string_view piece : pieces) impl_->bpe.Encode(piece, bpe_scratch, ids);
  }
  return ids;
}

std::string Tokenizer::Decode(std::span<const uint32_t> ids, bool skip_special) const {
  Detokenizer detokenizer(*this, skip_special);
  std::string text;
  for (const uint32_t id : ids) text += detokenizer.Push(id);
  return text + detokenizer.Flush();
}

std::optional<uint32_t> Tokenizer::IdOf(std::string_view token) const {
  const auto it = impl_->ids.find(std::string(token));
  if (it == impl_->ids.end()) return std::nullopt;
  return it->second;
}

std::string_view Tokenizer::TokenBytes(uint32_t id) const {
  if (id >= impl_->tokens.size()) return {};
  return impl_->tokens[id].bytes;
}

bool Tokenizer::IsSpecial(uint32_t id) const {
  return id < impl_->tokens.size() && impl_->tokens[id].special;
}

bool Tokenizer::IsAdded(uint32_t id) const {
  return id < impl_->tokens.size() && impl_->tokens[id].added;
}

size_t Tokenizer::vocab_size() const { return impl_->tokens.size(); }

std::vector<bool> Tokenizer::PlaceholderMask(size_t vocab_rows) const {
  std::vector<bool> mask(vocab_rows, true);
  for (size_t id = 0; id < std::min(vocab_rows, impl_->tokens.size()); ++id) {
    const Impl::Token& token = impl_->tokens[id];
    mask[id] = !token.known || token.content.starts_with(special::kPlaceholderPrefix);
  }
  return mask;
}

const std::string& Tokenizer::Hash() const { return impl_->hash; }

}  // namespace expertmesh::model

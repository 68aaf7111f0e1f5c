#include "cli/eval/name_exchange.h"

#include <cstdio>
#include <cstdlib>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "services/base/status.h"

namespace expertmesh::cli {
namespace {

bool IsWordByte(char c) {
  const auto byte = static_cast<unsigned char>(c);
  return absl::ascii_isalnum(byte) || byte >= 0x80;  // letters beyond ASCII count as one
}

// Where the name stands as a word of its own, from `from` on; npos if nowhere.
size_t FindWord(std::string_view text, std::string_view name, size_t from) {
  if (name.empty()) return std::string_view::npos;
  for (size_t at = from; (at = text.find(name, at)) != std::string_view::npos; ++at) {
    const size_t end = at + name.size();
    const bool begins = at == 0 || !IsWordByte(text[at - 1]) || !IsWordByte(name.front());
    const bool ends = end == text.size() || !IsWordByte(text[end]) || !IsWordByte(name.back());
    if (begins && ends) return at;
  }
  return std::string_view::npos;
}

}  // namespace

bool HasName(std::string_view text, std::string_view name) {
  return FindWord(text, name, 0) != std::string_view::npos;
}

std::string ReplaceName(std::string_view text, std::string_view from, std::string_view to) {
  std::string out;
  size_t done = 0;
  for (size_t at = 0; (at = FindWord(text, from, done)) != std::string_view::npos;) {
    out += text.substr(done, at - done);
    out += to;
    done = at + from.size();
  }
  out += text.substr(done);
  return out;
}

absl::StatusOr<std::vector<TokenRange>> FindName(const model::Tokenizer& tokenizer,
                                                 std::span<const uint32_t> ids,
                                                 std::string_view name) {
  std::string text;
  std::vector<size_t> begins;  // [ids + 1], first byte of each token
  for (const uint32_t id : ids) {
    begins.push_back(text.size());
    text += tokenizer.TokenBytes(id);
  }
  begins.push_back(text.size());
  std::vector<TokenRange> found;
  size_t token = 0;
  for (size_t at = 0; (at = FindWord(text, name, at)) != std::string_view::npos;
       at += name.size()) {
    while (token < ids.size() && begins[token + 1] <= at) ++token;
    TokenRange range{token, token};
    while (range.end < ids.size() && begins[range.end] < at + name.size()) ++range.end;
    const bool space = begins[token] + 1 == at && text[begins[token]] == ' ';
    if ((begins[token] != at && !space) || begins[range.end] != at + name.size()) {
      return base::Error(
          base::Reason::kInvalidArgument,
          absl::StrCat("\"", std::string(name), "\" is not made of whole tokens in: ", text));
    }
    found.push_back(range);
  }
  return found;
}

std::vector<uint64_t> NameExchange::Rows(size_t place, std::span<const uint32_t> tokens) const {
  std::vector<uint64_t> rows(tokens.size() * hash_.columns());
  for (size_t i = 0; i < tokens.size(); ++i) {
    hash_.Rows(place, tokens.first(i), tokens[i], rows.data() + i * hash_.columns());
  }
  return rows;
}

void NameExchange::Add(std::span<const uint32_t> first, std::span<const uint32_t> second) {
  if (first.size() != second.size()) {
    std::fprintf(stderr, "sequences of %zu and %zu tokens: the caller checks this\n", first.size(),
                 second.size());
    std::abort();
  }
  for (size_t place = 0; place < hash_.layers(); ++place) {
    const std::vector<uint64_t> a = Rows(place, first);
    const std::vector<uint64_t> b = Rows(place, second);
    RowPairs& pairs = pairs_[place];
    for (size_t i = 0; i < a.size(); ++i) {
      if (a[i] == b[i]) continue;
      const auto of_a = pairs.find(a[i]);
      const auto of_b = pairs.find(b[i]);
      if (of_a == pairs.end() && of_b == pairs.end()) {
        pairs.emplace(a[i], b[i]);
        pairs.emplace(b[i], a[i]);
      } else if (of_a == pairs.end() || of_a->second != b[i]) {
        refused_[place].insert(std::minmax(a[i], b[i]));
      }
    }
  }
}

void NameExchange::CountForeign(std::span<const uint32_t> tokens) {
  for (size_t place = 0; place < hash_.layers(); ++place) {
    for (const uint64_t row : Rows(place, tokens)) {
      ++foreign_reads_;
      if (pairs_[place].contains(row)) ++foreign_hits_;
    }
  }
}

size_t NameExchange::rows() const {
  size_t count = 0;
  for (const RowPairs& pairs : pairs_) count += pairs.size();
  return count;
}

size_t NameExchange::collisions() const {
  size_t count = 0;
  for (const auto& refused : refused_) count += refused.size();
  return count;
}

}  // namespace expertmesh::cli

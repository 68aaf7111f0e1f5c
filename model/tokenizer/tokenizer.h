// The tokenizer of a model directory: byte-level BPE read from tokenizer.json (Hugging Face
// `tokenizers` schema), with the pre-tokenizer that the file asks for (docs/formats.md §8.1).
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace expertmesh::model {

/// Immutable after loading; every method may be called from any thread.
class Tokenizer {
 public:
  /// Longest text of one Encode call.
  static constexpr size_t kTextBytesMax = 64u << 20;

  ~Tokenizer();
  Tokenizer(const Tokenizer&) = delete;
  Tokenizer& operator=(const Tokenizer&) = delete;

  /// Reads DIR/tokenizer.json. kBadTokenizer, one line naming the file and what is wrong with it.
  static absl::StatusOr<std::unique_ptr<Tokenizer>> Load(const std::string& directory);
  /// The same from the text of the file. Never aborts on any bytes.
  static absl::StatusOr<std::unique_ptr<Tokenizer>> FromJson(std::string_view text);

  /// Text → ids; nothing is put before or behind. With parse_special false, names of added tokens
  /// are ordinary text: use that for everything a user wrote. kInvalidArgument for text that is not
  /// UTF-8 (names the byte offset), too long, or beyond the match limits of the file's expressions.
  absl::StatusOr<std::vector<uint32_t>> Encode(std::string_view utf8, bool parse_special) const;

  /// Ids → text, always valid UTF-8: U+FFFD stands for bytes that are not. Ids without a token give
  /// nothing; skip_special also leaves out special tokens. In pieces: see Detokenizer.
  std::string Decode(std::span<const uint32_t> ids, bool skip_special) const;

  /// The id of a token as the file spells it, e.g. "<｜User｜>" or "Ġthe".
  std::optional<uint32_t> IdOf(std::string_view token) const;
  /// What a token stands for in the text; may be part of a character. Empty for ids without a
  /// token.
  std::string_view TokenBytes(uint32_t id) const;
  /// True for added tokens that are marked special.
  bool IsSpecial(uint32_t id) const;
  /// True for added tokens, special or not: text never becomes them unless parse_special is set.
  bool IsAdded(uint32_t id) const;

  /// Largest id + 1. A model may have more rows than this.
  size_t vocab_size() const;
  /// [vocab_rows] true where sampling must not go: ids without a token, and placeholders.
  std::vector<bool> PlaceholderMask(size_t vocab_rows) const;
  /// SHA-256 of the file, lower-case hex. Part of the fingerprint.
  const std::string& Hash() const;

 private:
  struct Impl;
  explicit Tokenizer(std::unique_ptr<const Impl> impl);
  std::unique_ptr<const Impl> impl_;
};

}  // namespace expertmesh::model

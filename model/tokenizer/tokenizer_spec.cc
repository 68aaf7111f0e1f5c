#include "model/tokenizer/tokenizer_spec.h"

#include <boost/json/array.hpp>
#include <boost/json/monotonic_resource.hpp>
#include <boost/json/object.hpp>
#include <boost/json/parse.hpp>
#include <optional>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "model/tokenizer/regex.h"
#include "services/base/status.h"

namespace expertmesh::model {
namespace {

namespace json = boost::json;

// What ByteLevel splits by if use_regex is true (GPT-2).
constexpr std::string_view kByteLevelPattern =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

std::string_view View(json::string_view text) { return {text.data(), text.size()}; }

// The field, or nullptr if it is absent or null.
const json::value* Find(const json::object& object, const char* key) {
  const json::value* value = object.if_contains(key);
  return value == nullptr || value->is_null() ? nullptr : value;
}

absl::StatusOr<const json::object*> ObjectOf(const json::value* value, std::string_view where) {
  if (value == nullptr || !value->is_object()) {
    return BadTokenizer(absl::StrCat(std::string(where), " is not an object"));
  }
  return &value->get_object();
}

absl::StatusOr<const json::array*> ArrayOf(const json::value* value, std::string_view where) {
  if (value == nullptr || !value->is_array()) {
    return BadTokenizer(absl::StrCat(std::string(where), " is not a list"));
  }
  return &value->get_array();
}

absl::StatusOr<std::string> StringOf(const json::value* value, std::string_view where) {
  if (value == nullptr || !value->is_string()) {
    return BadTokenizer(absl::StrCat(std::string(where), " is not a string"));
  }
  return std::string(View(value->get_string()));
}

absl::StatusOr<bool> BoolOf(const json::object& object, const char* key, bool if_absent) {
  const json::value* value = Find(object, key);
  if (value == nullptr) return if_absent;
  if (!value->is_bool()) return BadTokenizer(absl::StrCat(key, " is not true or false"));
  return value->get_bool();
}

absl::StatusOr<uint32_t> IdOf(const json::value* value, std::string_view content) {
  const int64_t* id = value == nullptr ? nullptr : value->if_int64();
  if (id == nullptr || *id < 0 || *id > int64_t{kTokenIdMax}) {
    return BadTokenizer(absl::StrCat("the id of token ", ShowToken(content),
                                     " is not an integer in [0, ", kTokenIdMax, "]"));
  }
  return static_cast<uint32_t>(*id);
}

absl::Status CheckLength(std::string_view content) {
  if (content.size() <= kTokenBytesMax) return absl::OkStatus();
  return BadTokenizer(
      absl::StrCat("token ", ShowToken(content), " is longer than ", kTokenBytesMax, " bytes"));
}

absl::Status ParseAddedTokens(const json::object& root, TokenizerSpec& spec) {
  const json::value* value = Find(root, "added_tokens");
  if (value == nullptr) return absl::OkStatus();
  EM_ASSIGN_OR_RETURN(const json::array* list, ArrayOf(value, "added_tokens"));
  for (const json::value& entry : *list) {
    EM_ASSIGN_OR_RETURN(const json::object* object, ObjectOf(&entry, "an entry of added_tokens"));
    AddedToken token;
    EM_ASSIGN_OR_RETURN(token.content,
                        StringOf(Find(*object, "content"), "content of an added token"));
    if (token.content.empty()) return BadTokenizer("an added token has no content");
    EM_RETURN_IF_ERROR(CheckLength(token.content));
    EM_ASSIGN_OR_RETURN(token.id, IdOf(Find(*object, "id"), token.content));
    EM_ASSIGN_OR_RETURN(token.special, BoolOf(*object, "special", false));
    EM_ASSIGN_OR_RETURN(token.normalized, BoolOf(*object, "normalized", !token.special));
    EM_ASSIGN_OR_RETURN(token.lstrip, BoolOf(*object, "lstrip", false));
    EM_ASSIGN_OR_RETURN(token.rstrip, BoolOf(*object, "rstrip", false));
    EM_ASSIGN_OR_RETURN(const bool single_word, BoolOf(*object, "single_word", false));
    if (single_word) {
      return BadTokenizer(
          absl::StrCat("added token ", ShowToken(token.content), ": single_word is not supported"));
    }
    spec.added_tokens.push_back(std::move(token));
  }
  return absl::OkStatus();
}

// "a b" (older files) or ["a", "b"].
absl::StatusOr<std::pair<std::string, std::string>> ParseMerge(const json::value& merge) {
  if (merge.is_string()) {
    const std::string_view text = View(merge.get_string());
    const size_t space = text.find(' ');
    if (space != std::string_view::npos && text.find(' ', space + 1) == std::string_view::npos) {
      return std::pair(std::string(text.substr(0, space)), std::string(text.substr(space + 1)));
    }
  } else if (merge.is_array() && merge.get_array().size() == 2) {
    const json::array& pair = merge.get_array();
    if (pair[0].is_string() && pair[1].is_string()) {
      return std::pair(std::string(View(pair[0].get_string())),
                       std::string(View(pair[1].get_string())));
    }
  }
  return BadTokenizer("an entry of model.merges is not a pair of tokens");
}

absl::Status ParseModel(const json::object& root, TokenizerSpec& spec) {
  EM_ASSIGN_OR_RETURN(const json::object* model, ObjectOf(Find(root, "model"), "model"));
  if (Find(*model, "type") != nullptr) {
    EM_ASSIGN_OR_RETURN(const std::string type, StringOf(Find(*model, "type"), "model.type"));
    if (type != "BPE") {
      return BadTokenizer(
          absl::StrCat("model.type ", ShowToken(type), " is not supported; supported is BPE"));
    }
  }
  for (const char* key : {"dropout", "continuing_subword_prefix", "end_of_word_suffix"}) {
    const json::value* value = Find(*model, key);
    if (value != nullptr && !(value->is_string() && value->get_string().empty())) {
      return BadTokenizer(absl::StrCat("model.", key, " is not supported"));
    }
  }
  EM_ASSIGN_OR_RETURN(spec.ignore_merges, BoolOf(*model, "ignore_merges", false));
  EM_ASSIGN_OR_RETURN(const json::object* vocab, ObjectOf(Find(*model, "vocab"), "model.vocab"));
  spec.vocab.reserve(vocab->size());
  for (const json::key_value_pair& entry : *vocab) {
    const std::string_view content = View(entry.key());
    EM_RETURN_IF_ERROR(CheckLength(content));
    EM_ASSIGN_OR_RETURN(const uint32_t id, IdOf(&entry.value(), content));
    spec.vocab.push_back({std::string(content), id});
  }
  EM_ASSIGN_OR_RETURN(const json::array* merges, ArrayOf(Find(*model, "merges"), "model.merges"));
  spec.merges.reserve(merges->size());
  for (const json::value& entry : *merges) {
    EM_ASSIGN_OR_RETURN(auto merge, ParseMerge(entry));
    spec.merges.push_back(std::move(merge));
  }
  return absl::OkStatus();
}

absl::StatusOr<SplitBehavior> ParseBehavior(const std::string& name) {
  if (name == "Removed") return SplitBehavior::kRemoved;
  if (name == "Isolated") return SplitBehavior::kIsolated;
  if (name == "MergedWithPrevious") return SplitBehavior::kMergedWithPrevious;
  if (name == "MergedWithNext") return SplitBehavior::kMergedWithNext;
  if (name == "Contiguous") return SplitBehavior::kContiguous;
  return BadTokenizer(absl::StrCat("Split behavior ", ShowToken(name), " is not known"));
}

absl::StatusOr<SplitStep> ParseSplit(const json::object& step) {
  SplitStep split;
  EM_ASSIGN_OR_RETURN(const json::object* pattern, ObjectOf(Find(step, "pattern"), "pattern"));
  if (const json::value* literal = Find(*pattern, "String"); literal != nullptr) {
    EM_ASSIGN_OR_RETURN(const std::string text, StringOf(literal, "pattern.String"));
    split.pattern = Regex::Quote(text);
  } else {
    EM_ASSIGN_OR_RETURN(split.pattern, StringOf(Find(*pattern, "Regex"), "pattern.Regex"));
  }
  EM_ASSIGN_OR_RETURN(const std::string behavior, StringOf(Find(step, "behavior"), "behavior"));
  EM_ASSIGN_OR_RETURN(split.behavior, ParseBehavior(behavior));
  EM_ASSIGN_OR_RETURN(split.invert, BoolOf(step, "invert", false));
  return split;
}

// The steps of the pre-tokenizer; ByteLevel, which maps the bytes, comes last.
absl::Status ParseStep(const json::value& value, bool is_last, TokenizerSpec& spec) {
  EM_ASSIGN_OR_RETURN(const json::object* step, ObjectOf(&value, "a step of pre_tokenizer"));
  EM_ASSIGN_OR_RETURN(const std::string type, StringOf(Find(*step, "type"), "pre_tokenizer.type"));
  if (type != "ByteLevel" && type != "Split" && type != "Digits") {
    return BadTokenizer(absl::StrCat("pre_tokenizer ", ShowToken(type),
                                     " is not supported; supported are Sequence, Split, Digits, "
                                     "ByteLevel"));
  }
  if (is_last != (type == "ByteLevel")) {
    return BadTokenizer(absl::StrCat("pre_tokenizer step ", ShowToken(type),
                                     ": the last step, and only that, must be ByteLevel"));
  }
  if (type == "ByteLevel") {
    EM_ASSIGN_OR_RETURN(const bool prefix_space, BoolOf(*step, "add_prefix_space", true));
    if (prefix_space) return BadTokenizer("pre_tokenizer add_prefix_space is not supported");
    EM_ASSIGN_OR_RETURN(const bool use_regex, BoolOf(*step, "use_regex", true));
    if (use_regex) spec.splits.push_back({.pattern = std::string(kByteLevelPattern)});
    return absl::OkStatus();
  }
  if (type == "Split") {
    EM_ASSIGN_OR_RETURN(SplitStep split, ParseSplit(*step));
    spec.splits.push_back(std::move(split));
    return absl::OkStatus();
  }
  // Digits, by the check above.
  EM_ASSIGN_OR_RETURN(const bool individual, BoolOf(*step, "individual_digits", false));
  spec.splits.push_back({.pattern = individual ? R"(\p{N})" : R"(\p{N}+)"});
  return absl::OkStatus();
}

absl::Status ParsePreTokenizer(const json::object& root, TokenizerSpec& spec) {
  const json::value* value = Find(root, "pre_tokenizer");
  EM_ASSIGN_OR_RETURN(const json::object* object, ObjectOf(value, "pre_tokenizer"));
  const json::value* type = Find(*object, "type");
  if (type == nullptr || !type->is_string() || type->get_string() != "Sequence") {
    return ParseStep(*value, true, spec);
  }
  EM_ASSIGN_OR_RETURN(const json::array* steps,
                      ArrayOf(Find(*object, "pretokenizers"), "pre_tokenizer.pretokenizers"));
  if (steps->empty()) return BadTokenizer("pre_tokenizer.pretokenizers is empty");
  for (const json::value& step : *steps) {
    EM_RETURN_IF_ERROR(ParseStep(step, &step == &steps->back(), spec));
  }
  return absl::OkStatus();
}

// A component that must be absent, of the given type, or an empty or one-element sequence.
absl::Status CheckComponent(const json::object& root, const char* key, const char* list_key,
                            std::string_view allowed_type) {
  const json::value* value = Find(root, key);
  if (value == nullptr) return absl::OkStatus();
  EM_ASSIGN_OR_RETURN(const json::object* object, ObjectOf(value, key));
  if (const json::value* list = Find(*object, list_key); list != nullptr && list->is_array()) {
    if (list->get_array().empty()) return absl::OkStatus();
    if (list->get_array().size() == 1) {
      EM_ASSIGN_OR_RETURN(object, ObjectOf(&list->get_array()[0], key));
    }
  }
  EM_ASSIGN_OR_RETURN(const std::string type, StringOf(Find(*object, "type"), key));
  if (type == allowed_type) return absl::OkStatus();
  return BadTokenizer(absl::StrCat(key, " ", ShowToken(type), " is not supported; supported is ",
                                   allowed_type.empty() ? "none" : std::string(allowed_type)));
}

}  // namespace

absl::Status BadTokenizer(std::string_view message) {
  return base::Error(base::Reason::kBadTokenizer, message);
}

std::string ShowToken(std::string_view content) {
  constexpr size_t kShownBytes = 48;
  const std::string shown(content.substr(0, kShownBytes));
  return absl::StrCat("\"", absl::Utf8SafeCEscape(shown), content.size() > kShownBytes ? "…" : "",
                      "\"");
}

absl::StatusOr<TokenizerSpec> ParseTokenizerJson(std::string_view text) {
  json::monotonic_resource memory;
  boost::system::error_code error;
  const json::value root = json::parse(json::string_view(text.data(), text.size()), error, &memory);
  if (error) return BadTokenizer(absl::StrCat("not JSON: ", error.message()));
  EM_ASSIGN_OR_RETURN(const json::object* object, ObjectOf(&root, "the document"));
  TokenizerSpec spec;
  EM_RETURN_IF_ERROR(CheckComponent(*object, "normalizer", "normalizers", ""));
  EM_RETURN_IF_ERROR(CheckComponent(*object, "decoder", "decoders", "ByteLevel"));
  EM_RETURN_IF_ERROR(ParsePreTokenizer(*object, spec));
  EM_RETURN_IF_ERROR(ParseAddedTokens(*object, spec));
  EM_RETURN_IF_ERROR(ParseModel(*object, spec));
  return spec;
}

}  // namespace expertmesh::model

#include "model/tokenizer/preset_writer.h"

#include <boost/json/array.hpp>
#include <boost/json/object.hpp>
#include <boost/json/serialize.hpp>
#include <filesystem>
#include <fstream>
#include <string_view>
#include <vector>

#include "absl/strings/str_cat.h"
#include "model/tokenizer/byte_map.h"
#include "model/tokenizer/deepseek_splitter.h"
#include "model/tokenizer/preset_words.h"
#include "model/tokenizer/special_tokens.h"
#include "model/tokenizer/tokenizer_spec.h"
#include "services/base/status.h"

namespace expertmesh::model {
namespace {

namespace json = boost::json;

constexpr uint32_t kPresetMaxVocab = kTokenIdMax + 1;
constexpr uint32_t kFirstByte = special::kPresetTokens.size();
static_assert(kFirstByte + 256 == kPresetMinVocab);

json::string_view View(std::string_view text) { return {text.data(), text.size()}; }

json::object ByteLevel(bool add_prefix_space, bool trim_offsets, bool use_regex) {
  return {{"type", "ByteLevel"},
          {"add_prefix_space", add_prefix_space},
          {"trim_offsets", trim_offsets},
          {"use_regex", use_regex}};
}

json::object PreTokenizer() {
  json::array steps;
  for (const std::string_view split : kDeepseekSplits) {
    steps.push_back(json::object{{"type", "Split"},
                                 {"pattern", json::object{{"Regex", View(split)}}},
                                 {"behavior", "Isolated"},
                                 {"invert", false}});
  }
  steps.push_back(ByteLevel(false, true, false));
  return {{"type", "Sequence"}, {"pretokenizers", std::move(steps)}};
}

json::array AddedTokens() {
  json::array tokens;
  for (size_t id = 0; id < special::kPresetTokens.size(); ++id) {
    const bool control = id < special::kControlCount;
    tokens.push_back(json::object{{"id", id},
                                  {"content", View(special::kPresetTokens[id])},
                                  {"single_word", false},
                                  {"lstrip", false},
                                  {"rstrip", false},
                                  {"normalized", !control},
                                  {"special", control}});
  }
  return tokens;
}

// Vocabulary and merges: named tokens, bytes in order of their value, merges, then placeholders,
// which no merge makes and no added token names, so that text never becomes one.
json::object BpeModel(uint32_t vocab_size) {
  const TrainedMerges trained = TrainMerges(PresetWords(), vocab_size - kPresetMinVocab);
  json::array merges;
  for (const auto& [left, right] : trained.merges) {
    merges.push_back(json::string(
        absl::StrCat(SpellBytes(trained.symbols[left]), " ", SpellBytes(trained.symbols[right]))));
  }
  json::object vocab;
  vocab.reserve(vocab_size);
  for (const std::string_view token : special::kPresetTokens) {
    vocab.emplace(View(token), vocab.size());
  }
  for (const std::string& symbol : trained.symbols) vocab.emplace(SpellBytes(symbol), vocab.size());
  for (uint32_t n = 0; vocab.size() < vocab_size; ++n) {
    vocab.emplace(absl::StrCat(std::string(special::kPlaceholderPrefix), n, "｜>"), vocab.size());
  }
  return {{"type", "BPE"},
          {"dropout", nullptr},
          {"unk_token", nullptr},
          {"continuing_subword_prefix", nullptr},
          {"end_of_word_suffix", nullptr},
          {"fuse_unk", false},
          {"byte_fallback", false},
          {"vocab", std::move(vocab)},
          {"merges", std::move(merges)}};
}

absl::Status WriteFile(const std::filesystem::path& path, const std::string& text) {
  std::ofstream file(path, std::ios::binary | std::ios::trunc);
  file << text << '\n';
  file.close();
  if (!file) {
    return base::Error(base::Reason::kInvalidArgument,
                       absl::StrCat("cannot write ", path.string(),
                                    ": check that the directory exists and has space"));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::string> PresetTokenizerJson(uint32_t vocab_size) {
  if (vocab_size < kPresetMinVocab || vocab_size > kPresetMaxVocab) {
    return base::Error(base::Reason::kInvalidArgument,
                       absl::StrCat("vocab_size ", vocab_size, " of a preset tokenizer is not in [",
                                    kPresetMinVocab, ", ", kPresetMaxVocab, "]"));
  }
  return json::serialize(json::object{{"version", "1.0"},
                                      {"truncation", nullptr},
                                      {"padding", nullptr},
                                      {"added_tokens", AddedTokens()},
                                      {"normalizer", nullptr},
                                      {"pre_tokenizer", PreTokenizer()},
                                      {"post_processor", ByteLevel(true, false, true)},
                                      {"decoder", ByteLevel(true, true, true)},
                                      {"model", BpeModel(vocab_size)}});
}

absl::Status WritePresetTokenizer(const std::string& directory, uint32_t vocab_size) {
  EM_ASSIGN_OR_RETURN(const std::string tokenizer, PresetTokenizerJson(vocab_size));
  json::object names{{"bos_token", View(special::kBos)},
                     {"eos_token", View(special::kEos)},
                     {"pad_token", View(special::kPad)}};
  const std::filesystem::path root(directory);
  EM_RETURN_IF_ERROR(WriteFile(root / "tokenizer.json", tokenizer));
  if (!std::filesystem::exists(root / "special_tokens_map.json")) {
    EM_RETURN_IF_ERROR(WriteFile(root / "special_tokens_map.json", json::serialize(names)));
  }
  names["add_bos_token"] = false;  // the chat encoding writes it
  names["add_eos_token"] = false;
  names["clean_up_tokenization_spaces"] = false;
  names["tokenizer_class"] = "PreTrainedTokenizerFast";
  return WriteFile(root / "tokenizer_config.json", json::serialize(names));
}

}  // namespace expertmesh::model

#include "model/config_family.h"

#include <algorithm>
#include <boost/json/array.hpp>

namespace expertmesh::model {
namespace {

namespace json = boost::json;

constexpr uint64_t kTableRowsMax = uint64_t{1} << 40;
constexpr uint32_t kStreamsMax = 16;

// Whole numbers of a list, or nothing after an error.
std::vector<uint64_t> Integers(KeyReader& keys, std::string_view key, uint64_t high) {
  const std::string wanted = absl::StrCat("must be a list of integers from 0 to ", high);
  const json::value* value = keys.Find(key);
  std::vector<uint64_t> numbers;
  if (!value) return numbers;
  if (!value->is_array()) {
    keys.Refuse(key, wanted);
    return numbers;
  }
  for (const json::value& item : value->get_array()) {
    if (!item.is_int64() || item.get_int64() < 0 ||
        static_cast<uint64_t>(item.get_int64()) > high) {
      keys.Refuse(key, wanted);
      return {};
    }
    numbers.push_back(static_cast<uint64_t>(item.get_int64()));
  }
  return numbers;
}

// "full" or "shared" for every layer, as a list.
std::vector<bool> ListedTypes(KeyReader& keys, const json::value& value) {
  std::vector<bool> full;
  if (value.is_array()) {
    for (const json::value& item : value.get_array()) {
      if (!item.is_string()) break;
      const std::string_view text(item.get_string().data(), item.get_string().size());
      if (text != "full" && text != "shared") break;
      full.push_back(text == "full");
    }
  }
  if (!value.is_array() || full.size() != value.get_array().size()) {
    keys.Refuse("indexer_types", "must be a list of \"full\" and \"shared\"");
  }
  return full;
}

// The same as a text of F and S.
std::vector<bool> PatternTypes(KeyReader& keys) {
  std::vector<bool> full;
  const std::string pattern = keys.TextOr("index_topk_pattern", "");
  for (const char c : pattern) {
    if (c != 'F' && c != 'S') keys.Refuse("index_topk_pattern", "must hold only F and S");
    full.push_back(c == 'F');
  }
  return full;
}

std::vector<bool> DerivedTypes(KeyReader& keys, uint32_t layers) {
  const uint64_t every = keys.IntegerOr("index_topk_freq", 1, 1, 1024);
  const uint64_t offset = keys.IntegerOr("index_skip_topk_offset", 2, 0, 1024);
  std::vector<bool> full;
  for (uint64_t i = 0; i < layers; ++i) {
    full.push_back((i + 1 > offset ? i + 1 - offset : 0) % every == 0);
  }
  return full;
}

void ReadIndexerTypes(KeyReader& keys, uint32_t layers, IndexerConfig& indexer) {
  std::string_view key = "index_skip_topk_offset";
  if (const json::value* list = keys.Find("indexer_types")) {
    key = "indexer_types";
    indexer.full = ListedTypes(keys, *list);
  } else if (keys.Find("index_topk_pattern")) {
    key = "index_topk_pattern";
    indexer.full = PatternTypes(keys);
  } else {
    indexer.full = DerivedTypes(keys, layers);
  }
  if (indexer.full.size() != layers) {
    keys.Refuse(key, absl::StrCat("must name each of the ", layers, " layers"));
  } else if (!indexer.full[0]) {
    keys.Refuse(key, "layer 0 must have an indexer of its own (\"full\")");
  }
}

void ReadIndexer(KeyReader& keys, Config& config) {
  if (config.IsOwnFamily() && keys.Stands("index_topk") && !keys.Find("index_topk")) return;
  IndexerConfig indexer;
  indexer.index_topk = keys.Size("index_topk", 1, 1 << 20);
  indexer.index_n_heads = keys.Size("index_n_heads", 1, 1024);
  indexer.index_head_dim = keys.Size("index_head_dim", 1, 1024);
  if (indexer.index_head_dim < config.qk_rope_head_dim) {
    keys.Refuse("index_head_dim",
                absl::StrCat("must not be below qk_rope_head_dim (", config.qk_rope_head_dim, ")"));
  }
  indexer.indexer_rope_interleave =
      keys.FlagOr("indexer_rope_interleave", config.model_type != "deepseek_v32");
  if (config.q_lora_rank == 0) {
    keys.Refuse("q_lora_rank", "must be a number: the indexer reads the query latent");
  }
  ReadIndexerTypes(keys, config.num_hidden_layers, indexer);
  config.indexer = std::move(indexer);
}

void ReadStreams(KeyReader& keys, Config& config) {
  config.hc_mult = keys.SizeOr("hc_mult", 4, 1, kStreamsMax);
  config.hc_sinkhorn_iters = keys.SizeOr("hc_sinkhorn_iters", 20, 3, 1000);
  config.hc_eps = static_cast<float>(keys.NumberOr("hc_eps", 1e-6, 1e-12, 1e-2));
}

void ReadEngramLayers(KeyReader& keys, const Config& config, EngramConfig& engram) {
  for (const uint64_t id : Integers(keys, "engram_layer_ids", config.num_hidden_layers - 1)) {
    if (!engram.layer_ids.empty() && id <= engram.layer_ids.back()) {
      keys.Refuse("engram_layer_ids", "must be strictly ascending");
    }
    engram.layer_ids.push_back(static_cast<uint32_t>(id));
  }
}

void ReadEngram(KeyReader& keys, Config& config) {
  EngramConfig engram;
  ReadEngramLayers(keys, config, engram);
  if (engram.layer_ids.empty()) return;
  engram.max_ngram = keys.SizeOr("engram_max_ngram", 3, 2, 16);
  engram.n_heads = keys.SizeOr("engram_n_heads", 8, 1, 256);
  engram.head_dim = keys.Size("engram_head_dim", 1, 1 << 14);
  engram.vocab_size = keys.Integer("engram_vocab_size", 2, uint64_t{1} << 32);
  engram.num_classes = keys.Size("engram_num_classes", 1, 1 << 24);
  engram.pad_token_id = keys.SizeOr("engram_pad_token_id", 2, 0, 1 << 20);
  if (engram.pad_token_id >= config.vocab_size) {
    keys.Refuse("engram_pad_token_id",
                absl::StrCat("must be below vocab_size (", config.vocab_size, ")"));
  }
  engram.seed = keys.IntegerOr("engram_seed", 0, 0, uint64_t{1} << 48);
  engram.num_embeddings = Integers(keys, "engram_num_embeddings", kTableRowsMax);
  if (engram.num_embeddings.size() != engram.layer_ids.size()) {
    keys.Refuse("engram_num_embeddings", "must name the rows of every layer of engram_layer_ids");
  }
  config.engram = std::move(engram);
}

}  // namespace

void ReadFamilyKeys(KeyReader& keys, Config& config) {
  if (config.model_type == "deepseek_v3") return;
  if (config.IsOwnFamily() && config.q_lora_rank == 0) {
    keys.Refuse("q_lora_rank", "must be a number");
  }
  ReadIndexer(keys, config);
  if (!config.IsOwnFamily()) return;
  ReadStreams(keys, config);
  ReadEngram(keys, config);
}

std::optional<size_t> Config::EngramPlace(uint32_t layer) const {
  if (!engram) return std::nullopt;
  const auto found = std::find(engram->layer_ids.begin(), engram->layer_ids.end(), layer);
  if (found == engram->layer_ids.end()) return std::nullopt;
  return static_cast<size_t>(found - engram->layer_ids.begin());
}

}  // namespace expertmesh::model

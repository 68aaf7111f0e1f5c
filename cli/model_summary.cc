#include "cli/model_summary.h"

#include <algorithm>
#include <boost/json/array.hpp>
#include <boost/json/object.hpp>
#include <boost/json/serialize.hpp>
#include <string_view>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "model/checkpoint.h"
#include "model/revision.h"
#include "model/writer/safetensors_layout.h"
#include "services/base/status.h"

namespace expertmesh::cli {
namespace {

namespace json = boost::json;

constexpr std::string_view kPartOrder[] = {"embedding",
                                           "head",
                                           "mla",
                                           "indexer",
                                           "mhc",
                                           "norms",
                                           "dense_ffn",
                                           "routed_experts",
                                           "shared_experts",
                                           "gates",
                                           "engram_tables",
                                           "engram_projections"};

uint64_t ActiveOf(const PartSize& part, const model::Config& config) {
  if (part.name == "embedding") return config.tie_word_embeddings ? part.parameters : 0;
  if (part.name == "routed_experts") {
    return part.parameters / config.n_routed_experts * config.num_experts_per_tok;
  }
  if (part.name == "engram_tables") {  // the rows of one token
    const model::EngramConfig& engram = *config.engram;
    return engram.layer_ids.size() * engram.columns() * engram.head_dim;
  }
  return part.parameters;
}

PartSize& PartOf(ModelSummary& summary, const std::string& name) {
  return *std::find_if(summary.parts.begin(), summary.parts.end(),
                       [&](const PartSize& part) { return part.name == name; });
}

void AddFormat(ModelSummary& summary, const std::string& name, uint64_t bytes) {
  const auto found = std::find_if(summary.formats.begin(), summary.formats.end(),
                                  [&](const FormatSize& format) { return format.name == name; });
  if (found != summary.formats.end()) {
    found->bytes += bytes;
  } else {
    summary.formats.push_back({name, bytes});
  }
}

json::string_view View(std::string_view text) { return {text.data(), text.size()}; }

}  // namespace

ModelSummary CountParameters(const model::Config& config) {
  ModelSummary summary;
  summary.config = config;
  for (const std::string_view name : kPartOrder) summary.parts.push_back({std::string(name)});
  for (const model::TensorSpec& spec : model::TensorSpecs(config)) {
    PartOf(summary, spec.part).parameters += model::ElementCount(spec.shape);
  }
  std::erase_if(summary.parts, [](const PartSize& part) { return part.parameters == 0; });
  summary.total.name = "total";
  for (PartSize& part : summary.parts) {
    part.active = ActiveOf(part, config);
    summary.total.parameters += part.parameters;
    summary.total.active += part.active;
  }
  summary.kv_elements_per_token =
      uint64_t{config.num_hidden_layers} * (config.kv_lora_rank + config.qk_rope_head_dim);
  if (config.indexer) {
    const auto& full = config.indexer->full;
    summary.kv_elements_per_token +=
        static_cast<uint64_t>(std::count(full.begin(), full.end(), true)) *
        config.indexer->index_head_dim;
  }
  return summary;
}

absl::StatusOr<ModelSummary> SummarizeModel(const std::string& directory,
                                            const model::ConfigOverrides& overrides) {
  EM_ASSIGN_OR_RETURN(const model::Config config, model::LoadConfig(directory, overrides));
  EM_ASSIGN_OR_RETURN(const auto checkpoint, model::Checkpoint::Open(directory));
  ModelSummary summary = CountParameters(config);
  summary.directory = directory;
  for (const auto& [name, view] : checkpoint->tensors()) {
    ++summary.unused_tensors;
    summary.unused_bytes += view.bytes.size();
  }
  for (const model::TensorSpec& spec : model::TensorSpecs(config)) {
    EM_ASSIGN_OR_RETURN(const model::StoredMatrix stored, checkpoint->Weight(spec));
    const uint64_t bytes = stored.values.size() + stored.scales.size();
    AddFormat(summary, model::FormatName(stored.format), bytes);
    PartOf(summary, spec.part).bytes += bytes;
    summary.total.bytes += bytes;
    summary.unused_tensors -= stored.format.is_quantised() ? 2 : 1;
    summary.unused_bytes -= bytes;
  }
  for (const model::HashTensorSpec& spec : model::EngramHashSpecs(config)) {
    EM_RETURN_IF_ERROR(checkpoint->Integers(spec).status());
    --summary.unused_tensors;
    summary.unused_bytes -= spec.size * model::TensorTypeBytes(spec.type);
  }
  std::stable_sort(summary.formats.begin(), summary.formats.end(),
                   [](const FormatSize& a, const FormatSize& b) { return a.bytes > b.bytes; });
  EM_ASSIGN_OR_RETURN(summary.revision,
                      checkpoint->Revision(model::RevisionOptions(false, overrides)));
  return summary;
}

std::string WithCommas(uint64_t number) {
  const std::string digits = absl::StrCat(number);
  std::string text;
  for (size_t i = 0; i < digits.size(); ++i) {
    if (i > 0 && (digits.size() - i) % 3 == 0) text += ',';
    text += digits[i];
  }
  return text;
}

std::string FormatsText(const ModelSummary& summary) {
  std::string text;
  for (const FormatSize& format : summary.formats) {
    absl::StrAppend(&text, text.empty() ? "" : ", ", format.name, " ", WithCommas(format.bytes),
                    " bytes");
  }
  return text;
}

namespace {

// What the family has beyond deepseek_v3.
std::string MechanismsText(const model::Config& c) {
  std::string text;
  if (c.indexer) {
    const auto full = std::count(c.indexer->full.begin(), c.indexer->full.end(), true);
    absl::StrAppend(&text, "selection  ", c.indexer->index_topk, " positions, by ",
                    c.indexer->index_n_heads, " heads of ", c.indexer->index_head_dim, " in ", full,
                    " layers\n");
  }
  if (c.hc_mult > 1) {
    absl::StrAppend(&text, "streams    ", c.hc_mult, ", ", c.hc_sinkhorn_iters, " iterations\n");
  }
  if (c.engram) {
    absl::StrAppend(&text, "memory     layers ", absl::StrJoin(c.engram->layer_ids, ", "), ": ");
    std::vector<std::string> rows;
    for (uint64_t count : c.engram->num_embeddings) rows.push_back(WithCommas(count));
    absl::StrAppend(&text, absl::StrJoin(rows, " and "), " rows of ", c.engram->head_dim, ", ",
                    c.engram->columns(), " a token\n");
  }
  return text;
}

}  // namespace

std::string SummaryText(const ModelSummary& summary) {
  const model::Config& c = summary.config;
  const bool on_paper = summary.revision.empty();
  std::string text = absl::StrCat(
      "model      ", summary.directory, "\nfamily     ", c.model_type, "\nweights    ",
      on_paper ? "none, a shape on paper" : FormatsText(summary), "\nlayers     ",
      c.num_hidden_layers, " (", c.first_k_dense_replace, " dense), hidden ", c.hidden_size, ", ",
      c.num_attention_heads, " heads, vocabulary ", c.vocab_size, "\nexperts    ",
      c.n_routed_experts, " routed, ", c.num_experts_per_tok, " per token, ", c.n_shared_experts,
      " shared, width ", c.moe_intermediate_size, "\ncontext    ",
      WithCommas(c.max_position_embeddings), " tokens\n", MechanismsText(c),
      on_paper ? "" : absl::StrCat("revision   ", summary.revision, "\n"), "\n");
  absl::StrAppendFormat(&text, "%-18s %18s %18s %18s\n", "part", "parameters", "active",
                        on_paper ? "" : "bytes");
  std::vector<PartSize> rows = summary.parts;
  rows.push_back(summary.total);
  for (const PartSize& row : rows) {
    absl::StrAppendFormat(&text, "%-18s %18s %18s %18s\n", row.name, WithCommas(row.parameters),
                          WithCommas(row.active), on_paper ? "" : WithCommas(row.bytes));
  }
  const uint64_t kv = summary.kv_elements_per_token;
  absl::StrAppend(&text, "\nKV per token: ", WithCommas(kv), " elements; ", WithCommas(kv * 4),
                  " bytes in exact-f32, ", WithCommas(kv * 2), " bytes in bf16 and int8\n");
  if (summary.unused_tensors > 0) {
    absl::StrAppend(&text, "Not used: ", summary.unused_tensors, " tensors, ",
                    WithCommas(summary.unused_bytes), " bytes\n");
  }
  return text;
}

std::string SummaryJson(const ModelSummary& summary) {
  const model::Config& c = summary.config;
  json::object parts;
  for (const PartSize& part : summary.parts) {
    parts[View(part.name)] = json::object{
        {"parameters", part.parameters}, {"active", part.active}, {"bytes", part.bytes}};
  }
  json::object formats;
  for (const FormatSize& format : summary.formats) formats[View(format.name)] = format.bytes;
  const uint64_t kv = summary.kv_elements_per_token;
  return json::serialize(
             json::object{{"directory", View(summary.directory)},
                          {"model_type", View(c.model_type)},
                          {"revision", View(summary.revision)},
                          {"parameters", summary.total.parameters},
                          {"active_parameters", summary.total.active},
                          {"bytes", summary.total.bytes},
                          {"parts", std::move(parts)},
                          {"formats", std::move(formats)},
                          {"kv_elements_per_token", kv},
                          {"kv_bytes_per_token",
                           json::object{{"exact-f32", kv * 4}, {"bf16", kv * 2}, {"int8", kv * 2}}},
                          {"layers", c.num_hidden_layers},
                          {"experts", c.n_routed_experts},
                          {"experts_per_token", c.num_experts_per_tok},
                          {"context_tokens", c.max_position_embeddings},
                          {"vocab_size", c.vocab_size},
                          {"unused_tensors", summary.unused_tensors},
                          {"unused_bytes", summary.unused_bytes}}) +
         "\n";
}

}  // namespace expertmesh::cli

#include "cli/model_summary.h"

#include <gtest/gtest.h>

#include <map>

#include "model/writer/presets.h"

namespace expertmesh::cli {
namespace {

std::map<std::string, uint64_t> Parts(const ModelSummary& summary) {
  std::map<std::string, uint64_t> parts;
  for (const PartSize& part : summary.parts) parts[part.name] = part.parameters;
  return parts;
}

// The numbers of docs/model-family.md §6.
TEST(CountParameters, TinyV3IsExact) {
  const ModelSummary summary = CountParameters(model::FindPreset("tiny-v3")->config);
  EXPECT_EQ(summary.total.parameters, 1'114'048u);
  EXPECT_EQ(summary.total.active, 688'064u);
  EXPECT_EQ(summary.kv_elements_per_token, 200u);
  const std::map<std::string, uint64_t> expected = {
      {"embedding", 32'768},      {"head", 32'768},
      {"mla", 197'760},           {"norms", 704},
      {"dense_ffn", 30'720},      {"routed_experts", 786'432},
      {"shared_experts", 24'576}, {"gates", 8'320}};
  EXPECT_EQ(Parts(summary), expected);
}

TEST(CountParameters, Bench1bIsExact) {
  const ModelSummary summary = CountParameters(model::FindPreset("bench-1b")->config);
  EXPECT_EQ(summary.total.parameters, 1'298'637'504u);
  EXPECT_EQ(summary.total.active, 435'397'312u);
  EXPECT_EQ(summary.kv_elements_per_token, 6'912u);
  const std::map<std::string, uint64_t> expected = {{"embedding", 32'768'000},
                                                    {"head", 32'768'000},
                                                    {"mla", 95'173'632},
                                                    {"norms", 25'600},
                                                    {"dense_ffn", 12'582'912},
                                                    {"routed_experts", 1'107'296'256},
                                                    {"shared_experts", 17'301'504},
                                                    {"gates", 721'600}};
  EXPECT_EQ(Parts(summary), expected);
}

TEST(CountParameters, EveryPresetOfTheFamilyIsExact) {
  struct Row {
    const char* preset;
    uint64_t total, active, kv, indexer, mhc, tables, projections;
  };
  for (const Row& row :
       {Row{"tiny", 1'390'771, 856'371, 248, 22'368, 62'739, 108'672, 82'944},
        Row{"demo", 11'045'555, 4'916'979, 496, 64'704, 250'131, 1'410'496, 659'456},
        Row{"bench-1b-full", 1'555'035'853, 450'285'645, 7'552, 4'629'760, 2'376'333, 241'511'552,
            7'880'704},
        Row{"1t", 996'712'639'041, 34'634'389'569, 35'456, 119'017'472, 79'940'673, 196'613'849'600,
            440'516'608}}) {
    const ModelSummary summary = CountParameters(model::FindPreset(row.preset)->config);
    EXPECT_EQ(summary.total.parameters, row.total) << row.preset;
    EXPECT_EQ(summary.total.active, row.active) << row.preset;
    EXPECT_EQ(summary.kv_elements_per_token, row.kv) << row.preset;
    const auto parts = Parts(summary);
    EXPECT_EQ(parts.at("indexer"), row.indexer) << row.preset;
    EXPECT_EQ(parts.at("mhc"), row.mhc) << row.preset;
    EXPECT_EQ(parts.at("engram_tables"), row.tables) << row.preset;
    EXPECT_EQ(parts.at("engram_projections"), row.projections) << row.preset;
  }
}

TEST(CountParameters, ATiedHeadIsActiveAsTheEmbedding) {
  model::Config config = model::FindPreset("tiny-v3")->config;
  config.tie_word_embeddings = true;
  const ModelSummary summary = CountParameters(config);
  EXPECT_EQ(summary.total.parameters, 1'114'048u - 32'768u);
  EXPECT_EQ(summary.total.active, 688'064u);
  EXPECT_FALSE(Parts(summary).contains("head"));
}

TEST(WithCommas, GroupsByThree) {
  EXPECT_EQ(WithCommas(0), "0");
  EXPECT_EQ(WithCommas(999), "999");
  EXPECT_EQ(WithCommas(1000), "1,000");
  EXPECT_EQ(WithCommas(1'298'637'504), "1,298,637,504");
}

}  // namespace
}  // namespace expertmesh::cli

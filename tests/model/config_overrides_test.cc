#include "model/config_overrides.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "model/checkpoint.h"
#include "model/config.h"
#include "model/expert_slice.h"
#include "model/revision.h"
#include "model/runtime.h"
#include "model/writer/model_writer.h"
#include "model/writer/presets.h"
#include "services/base/status.h"
#include "tests/support/temp_dir.h"

namespace expertmesh::model {
namespace {

using base::Reason;

ConfigOverrides Overrides(const std::vector<std::string>& words) {
  const auto overrides = ConfigOverrides::Parse(words);
  EXPECT_TRUE(overrides.ok()) << overrides.status();
  return overrides.value_or(ConfigOverrides());
}

std::string Tiny() { return ConfigJson(FindPreset("tiny")->config); }

TEST(ConfigOverridesTest, ValuesAreJsonOrPlainWords) {
  const ConfigOverrides overrides =
      Overrides({"index_topk= 32 ", "engram_layer_ids=[1, 2]", "a=null", "b=word", "c=\"x=y\""});
  EXPECT_EQ(overrides.Json(),
            R"({"a":null,"b":"word","c":"x=y","engram_layer_ids":[1,2],"index_topk":32})");
  EXPECT_EQ(Overrides({"b=1", "a=2"}).Json(), Overrides({"a=2", "b=1"}).Json());
  EXPECT_EQ(Overrides({"b=1", "a=[]"}).Flags(), "--override a=[] --override b=1");
  EXPECT_TRUE(Overrides({}).empty());
}

TEST(ConfigOverridesTest, RefusesWhatItCannotRead) {
  const std::vector<std::vector<std::string>> bad = {{"index_topk"},
                                                     {"=3"},
                                                     {""},
                                                     {"index_topk="},
                                                     {"engram_layer_ids=[1"},
                                                     {"index_topk=3x"},
                                                     {"a=1", "a=1"},
                                                     {"a=" + std::string(5000, '1')}};
  for (const auto& words : bad) {
    const absl::Status status = ConfigOverrides::Parse(words).status();
    EXPECT_EQ(base::ReasonOf(status), Reason::kInvalidArgument) << words[0].substr(0, 40);
    EXPECT_THAT(std::string(status.message()), testing::HasSubstr("--override"));
    EXPECT_LT(status.message().size(), 200u);
    EXPECT_EQ(status.message().find('\n'), std::string::npos);
  }
}

TEST(ConfigOverridesTest, ReplaceKeysBeforeTheyAreChecked) {
  const auto plain = ParseConfig(Tiny());
  ASSERT_TRUE(plain->engram.has_value());
  ASSERT_TRUE(plain->indexer.has_value());
  const auto forgetful = ParseConfig(Tiny(), Overrides({"engram_layer_ids=[]"}));
  ASSERT_TRUE(forgetful.ok()) << forgetful.status();
  EXPECT_FALSE(forgetful->engram.has_value());
  EXPECT_TRUE(forgetful->indexer.has_value());
  const auto dense = ParseConfig(Tiny(), Overrides({"index_topk=null"}));
  ASSERT_TRUE(dense.ok()) << dense.status();
  EXPECT_FALSE(dense->indexer.has_value());
  const auto other = ParseConfig(Tiny(), Overrides({"index_topk=3", "num_experts_per_tok=8"}));
  ASSERT_TRUE(other.ok()) << other.status();
  EXPECT_EQ(other->indexer->index_topk, 3u);
  EXPECT_EQ(other->num_experts_per_tok, 8u);
}

TEST(ConfigOverridesTest, RefusedValuesAndUnreadKeysAreNamed) {
  const std::vector<std::pair<std::string, std::string>> bad = {
      {"index_topk=0", "index_topk"},   {"index_topk=many", "index_topk"},
      {"index_topp=3", "index_topp"},   {"engram_layer_ids=[9]", "engram_layer_ids"},
      {"n_group=2", "n_group"},         {"num_experts_per_tok=1000", "num_experts_per_tok"},
      {"model_type=bert", "model_type"}};
  for (const auto& [word, key] : bad) {
    const absl::Status status = ParseConfig(Tiny(), Overrides({word})).status();
    EXPECT_EQ(base::ReasonOf(status), Reason::kBadConfig) << word;
    EXPECT_THAT(std::string(status.message()), testing::HasSubstr("\"" + key + "\"")) << word;
  }
}

class OverriddenModelTest : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    dir_ = new test_support::TempDir;
    WriteOptions write;
    write.directory = *dir_ / "tiny";
    write.seed = 1;
    ASSERT_TRUE(WriteModel(*FindPreset("tiny"), write).ok());
  }
  static void TearDownTestSuite() { delete dir_; }
  static std::string Directory() { return *dir_ / "tiny"; }

 private:
  static test_support::TempDir* dir_;
};
test_support::TempDir* OverriddenModelTest::dir_ = nullptr;

TEST_F(OverriddenModelTest, LoadsWithoutThePartsThatAreSwitchedOff) {
  std::vector<std::string> revisions;
  for (const std::vector<std::string>& words :
       std::vector<std::vector<std::string>>{{},
                                             {"engram_layer_ids=[]"},
                                             {"index_topk=null"},
                                             {"index_topk=32"},
                                             {"num_experts_per_tok=8"},
                                             {"engram_layer_ids=[]", "index_topk=null"}}) {
    AttentionModel::Options attention;
    attention.directory = Directory();
    attention.overrides = Overrides(words);
    const auto model = AttentionModel::Load(attention);
    ASSERT_TRUE(model.ok()) << model.status();
    ExpertSlice::Options slice;
    slice.directory = Directory();
    slice.overrides = attention.overrides;
    slice.experts = {{0, 16}};
    const auto experts = ExpertSlice::Load(slice);
    ASSERT_TRUE(experts.ok()) << experts.status();
    EXPECT_EQ((*model)->revision(), (*experts)->revision());
    EXPECT_THAT(revisions, testing::Not(testing::Contains((*model)->revision())));
    revisions.push_back((*model)->revision());
  }
  const auto checkpoint = Checkpoint::Open(Directory());
  EXPECT_EQ(revisions[0], *(*checkpoint)->Revision());  // none changes nothing
}

TEST_F(OverriddenModelTest, ErrorsNameFileAndOverride) {
  const absl::Status status = LoadConfig(Directory(), Overrides({"index_topk=-1"})).status();
  EXPECT_EQ(base::ReasonOf(status), Reason::kBadConfig);
  EXPECT_THAT(std::string(status.message()),
              testing::HasSubstr("config.json with --override index_topk=-1: "));
}

}  // namespace
}  // namespace expertmesh::model

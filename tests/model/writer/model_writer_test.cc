#include "model/writer/model_writer.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <set>

#include "model/checkpoint.h"
#include "services/base/status.h"
#include "tests/support/temp_dir.h"

namespace expertmesh::model {
namespace {

using test_support::ReadFile;
using test_support::TempDir;

// The preset with fewer layers and experts, to be quick.
Preset SmallPreset(const std::string& dtype = "float32") {
  Preset preset = *FindPreset("tiny-v3");
  preset.config.num_hidden_layers = 2;
  preset.config.n_routed_experts = 24;
  preset.config.torch_dtype = dtype;
  return preset;
}

absl::Status Write(const std::string& directory, uint64_t seed, uint64_t shard_bytes = 0,
                   int threads = 2, const Preset& preset = SmallPreset()) {
  WriteOptions options;
  options.directory = directory;
  options.seed = seed;
  options.shard_bytes = shard_bytes;
  options.threads = threads;
  return WriteModel(preset, options);
}

std::set<std::string> FilesOf(const std::string& directory) {
  std::set<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(directory)) {
    names.insert(entry.path().filename().string());
  }
  return names;
}

TEST(WriteModel, MakesACompleteDirectoryAndNothingBesideIt) {
  const TempDir dir;
  ASSERT_TRUE(Write(dir / "m", 1).ok());
  EXPECT_EQ(FilesOf(dir.path()), std::set<std::string>{"m"});
  for (const char* name : {"config.json", "generation_config.json", "model.safetensors",
                           "tokenizer.json", "tokenizer_config.json"}) {
    EXPECT_TRUE(FilesOf(dir / "m").contains(name)) << name;
  }
  const auto config = LoadConfig(dir / "m");
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(ConfigJson(*config), ConfigJson(SmallPreset().config));
}

TEST(WriteModel, HoldsEveryTensorOfTheConfigAndNoOther) {
  for (const std::string dtype : {"float32", "bfloat16"}) {
    const TempDir dir;
    const Preset preset = SmallPreset(dtype);
    ASSERT_TRUE(Write(dir / "m", 1, 0, 2, preset).ok());
    const auto checkpoint = Checkpoint::Open(dir / "m");
    ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
    const std::vector<TensorSpec> specs = TensorSpecs(preset.config);
    EXPECT_EQ((*checkpoint)->tensors().size(), specs.size());
    for (const TensorSpec& spec : specs) {
      const auto view = (*checkpoint)->Float(spec.name, spec.shape);
      ASSERT_TRUE(view.ok()) << view.status();
      const bool is_f32 = dtype == "float32" || spec.always_f32;
      EXPECT_EQ(view->type, is_f32 ? TensorType::kF32 : TensorType::kBf16) << spec.name;
    }
  }
}

TEST(WriteModel, SameSeedSameBytesOnAnyNumberOfThreads) {
  const TempDir dir;
  ASSERT_TRUE(Write(dir / "a", 7, 0, 1).ok());
  ASSERT_TRUE(Write(dir / "b", 7, 0, 3).ok());
  ASSERT_TRUE(Write(dir / "c", 8, 0, 1).ok());
  for (const std::string& name : FilesOf(dir / "a")) {
    EXPECT_EQ(ReadFile(dir / ("a/" + name)), ReadFile(dir / ("b/" + name))) << name;
  }
  EXPECT_NE(ReadFile(dir / "a/model.safetensors"), ReadFile(dir / "c/model.safetensors"));
}

TEST(WriteModel, ShardsHoldTheSameTensors) {
  const TempDir dir;
  constexpr uint64_t kShardBytes = 200'000;
  ASSERT_TRUE(Write(dir / "one", 7).ok());
  ASSERT_TRUE(Write(dir / "many", 7, kShardBytes).ok());
  const auto one = *Checkpoint::Open(dir / "one");
  const auto many = Checkpoint::Open(dir / "many");
  ASSERT_TRUE(many.ok()) << many.status();
  EXPECT_EQ(*one->Revision(), *(*many)->Revision());
  EXPECT_TRUE(FilesOf(dir / "many").contains("model.safetensors.index.json"));
  EXPECT_FALSE(FilesOf(dir / "many").contains("model.safetensors"));
  size_t shards = 0;
  for (const std::string& name : FilesOf(dir / "many")) {
    if (!name.ends_with(".safetensors")) continue;
    ++shards;
    EXPECT_LE(std::filesystem::file_size(dir / ("many/" + name)), kShardBytes + 20'000) << name;
  }
  EXPECT_GT(shards, 2u);
}

TEST(WriteModel, LeavesWhatExistsAlone) {
  const TempDir dir;
  std::filesystem::create_directory(dir / "full");
  test_support::WriteFile(dir / "full/mine.txt", "mine");
  test_support::WriteFile(dir / "file", "mine");
  for (const char* name : {"full", "file", "file/below"}) {
    EXPECT_EQ(base::ReasonOf(Write(dir / name, 1)), base::Reason::kInvalidArgument) << name;
  }
  EXPECT_EQ(FilesOf(dir.path()), (std::set<std::string>{"file", "full"}));
  EXPECT_EQ(FilesOf(dir / "full"), std::set<std::string>{"mine.txt"});
  std::filesystem::create_directory(dir / "empty");
  EXPECT_TRUE(Write(dir / "empty/", 1).ok());
  EXPECT_TRUE(FilesOf(dir / "empty").contains("config.json"));
}

TEST(WriteModel, LeavesNothingWhenItFails) {
  const TempDir dir;
  Preset preset = SmallPreset();
  preset.config.vocab_size = 10;  // too small for any tokenizer
  EXPECT_EQ(base::ReasonOf(Write(dir / "m", 1, 0, 1, preset)), base::Reason::kInvalidArgument);
  EXPECT_TRUE(FilesOf(dir.path()).empty());
}

TEST(FindPreset, EveryPresetIsAConfigThatCanBeRead) {
  for (const std::string& name : PresetNames()) {
    const auto preset = FindPreset(name);
    ASSERT_TRUE(preset.ok());
    EXPECT_TRUE(ParseConfig(ConfigJson(preset->config)).ok()) << name;
  }
  EXPECT_EQ(base::ReasonOf(FindPreset("huge").status()), base::Reason::kInvalidArgument);
}

}  // namespace
}  // namespace expertmesh::model

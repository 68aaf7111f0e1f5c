#include "model/writer/converter.h"

#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <set>

#include "model/checkpoint.h"
#include "model/config.h"
#include "services/base/status.h"
#include "tests/support/temp_dir.h"
#include "tests/support/tiny_checkpoint.h"

namespace expertmesh::model {
namespace {

using test_support::ReadFile;
using test_support::TempDir;
using test_support::WriteFile;

constexpr TargetFormat kQuantised[] = {TargetFormat::kFp8Block128, TargetFormat::kFp8Block32,
                                       TargetFormat::kFp4, TargetFormat::kInt8,
                                       TargetFormat::kInt4};

absl::StatusOr<std::vector<ConversionError>> TryConvert(const std::string& from,
                                                        const std::string& to, TargetFormat format,
                                                        uint64_t group_size = 32, int threads = 2,
                                                        uint64_t shard_bytes = 0) {
  ConvertOptions options;
  options.from = from;
  options.to = to;
  options.format = format;
  options.group_size = group_size;
  options.threads = threads;
  options.shard_bytes = shard_bytes;
  return ConvertModel(options);
}

void Convert(const std::string& from, const std::string& to, TargetFormat format) {
  const auto errors = TryConvert(from, to, format);
  ASSERT_TRUE(errors.ok()) << errors.status();
}

std::set<std::string> FilesOf(const std::string& directory) {
  std::set<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(directory)) {
    names.insert(entry.path().filename().string());
  }
  return names;
}

// Bits of every value of a tensor, whatever its form.
std::vector<float> Values(const Checkpoint& checkpoint, const TensorSpec& spec) {
  const auto matrix = checkpoint.Weight(spec);
  EXPECT_TRUE(matrix.ok()) << matrix.status();
  std::vector<float> values(matrix->rows * matrix->columns);
  EXPECT_TRUE(DecodeRows(*matrix, 0, matrix->rows, values.data()).ok());
  return values;
}

class ConvertModelTest : public testing::Test {
 protected:
  ConvertModelTest() { test_support::WriteTinyModel(source(), config_); }
  std::string source() const { return dir_ / "f32"; }

  void ExpectSameValues(const std::string& a, const std::string& b) {
    const auto first = *Checkpoint::Open(a);
    const auto second = *Checkpoint::Open(b);
    for (const TensorSpec& spec : TensorSpecs(config_)) {
      EXPECT_TRUE(Values(*first, spec) == Values(*second, spec)) << spec.name;
    }
  }

  TempDir dir_;
  Config config_ = test_support::AwkwardConfig();
};

// docs/model-family.md §3: what is marked q, and nothing else.
TEST_F(ConvertModelTest, QuantisesWhatTheFamilyMarksAndLeavesTheRest) {
  for (const TargetFormat format : kQuantised) {
    const std::string out = dir_ / TargetFormatNames()[static_cast<size_t>(format)];
    Convert(source(), out, format);
    const auto checkpoint = *Checkpoint::Open(out);
    for (const TensorSpec& spec : TensorSpecs(config_)) {
      const auto matrix = checkpoint->Weight(spec);
      ASSERT_TRUE(matrix.ok()) << matrix.status();
      const bool marked = spec.shape.size() == 2 && spec.name.find("_proj") != std::string::npos;
      EXPECT_EQ(matrix->format.is_quantised(), marked) << spec.name;
      EXPECT_EQ(matrix->format.values == ValueFormat::kF32, !marked) << spec.name;
      const bool routed = spec.name.find(".mlp.experts.") != std::string::npos;
      const bool fp4 = matrix->format.values == ValueFormat::kE2m1;
      EXPECT_EQ(fp4, routed && format == TargetFormat::kFp4) << spec.name;
    }
  }
}

TEST_F(ConvertModelTest, NamesAndTypesAreThoseOfThePublishedForms) {
  const std::string expert = "model.layers.1.mlp.experts.3.down_proj";  // [40, 22]
  struct Row {
    TargetFormat format;
    std::string scales;
    TensorType values_type, scales_type;
    std::vector<uint64_t> values_shape, scales_shape;
  };
  for (const Row& row :
       {Row{TargetFormat::kFp8Block128,
            ".weight_scale_inv",
            TensorType::kF8E4m3,
            TensorType::kF32,
            {40, 22},
            {1, 1}},
        Row{TargetFormat::kFp8Block32,
            ".weight_scale_inv",
            TensorType::kF8E4m3,
            TensorType::kF8E8m0,
            {40, 22},
            {2, 1}},
        Row{TargetFormat::kFp4, ".scale", TensorType::kI8, TensorType::kF8E8m0, {40, 11}, {40, 1}},
        Row{TargetFormat::kInt8,
            ".weight_scale",
            TensorType::kI8,
            TensorType::kF16,
            {40, 22},
            {40, 1}},
        Row{TargetFormat::kInt4,
            ".weight_scale",
            TensorType::kU8,
            TensorType::kF16,
            {40, 11},
            {40, 1}}}) {
    const TempDir out;
    Convert(source(), out / "m", row.format);
    const auto checkpoint = *Checkpoint::Open(out / "m");
    const TensorView* values = checkpoint->Find(expert + ".weight");
    const TensorView* scales = checkpoint->Find(expert + row.scales);
    ASSERT_NE(scales, nullptr) << row.scales;
    EXPECT_EQ(values->type, row.values_type);
    EXPECT_EQ(values->shape, row.values_shape);
    EXPECT_EQ(scales->type, row.scales_type);
    EXPECT_EQ(scales->shape, row.scales_shape);
  }
}

TEST_F(ConvertModelTest, ThereAndBackKeepsValuesAndIntegersTheirBytes) {
  for (const TargetFormat format : kQuantised) {
    const TempDir out;
    Convert(source(), out / "a", format);
    Convert(out / "a", out / "b", TargetFormat::kF32);
    Convert(out / "b", out / "c", format);
    ExpectSameValues(out / "a", out / "b");
    ExpectSameValues(out / "a", out / "c");
    if (format == TargetFormat::kInt8 || format == TargetFormat::kInt4) {
      EXPECT_TRUE(ReadFile(out / "a/model.safetensors") == ReadFile(out / "c/model.safetensors"));
    }
  }
  Convert(source(), dir_ / "bf16", TargetFormat::kBf16);
  Convert(dir_ / "bf16", dir_ / "wide", TargetFormat::kF32);
  Convert(dir_ / "wide", dir_ / "again", TargetFormat::kBf16);
  ExpectSameValues(dir_ / "bf16", dir_ / "wide");
  EXPECT_TRUE(ReadFile(dir_ / "bf16/model.safetensors") ==
              ReadFile(dir_ / "again/model.safetensors"));
  EXPECT_EQ(LoadConfig(dir_ / "bf16")->torch_dtype, "bfloat16");
  EXPECT_EQ(LoadConfig(dir_ / "wide")->torch_dtype, "float32");
}

TEST_F(ConvertModelTest, EveryPairOfFormsConverts) {
  for (const TargetFormat first : kQuantised) {
    const TempDir out;
    Convert(source(), out / "first", first);
    for (const TargetFormat second : kQuantised) {
      const std::string to = out / TargetFormatNames()[static_cast<size_t>(second)];
      Convert(out / "first", to, second);
      EXPECT_TRUE(Checkpoint::Open(to).ok());
    }
  }
}

TEST_F(ConvertModelTest, TheFormThatIsThereAlreadyIsCopied) {
  Convert(source(), dir_ / "a", TargetFormat::kInt8);
  const auto errors = TryConvert(dir_ / "a", dir_ / "b", TargetFormat::kInt8);
  ASSERT_TRUE(errors.ok()) << errors.status();
  EXPECT_TRUE(errors->empty());
  EXPECT_TRUE(ReadFile(dir_ / "a/model.safetensors") == ReadFile(dir_ / "b/model.safetensors"));
  EXPECT_TRUE(ReadFile(dir_ / "a/config.json") == ReadFile(dir_ / "b/config.json"));
}

TEST_F(ConvertModelTest, BytesDoNotDependOnThreadsNorOnShards) {
  ASSERT_TRUE(TryConvert(source(), dir_ / "one", TargetFormat::kFp4, 32, 1).ok());
  ASSERT_TRUE(TryConvert(source(), dir_ / "three", TargetFormat::kFp4, 32, 3).ok());
  EXPECT_TRUE(ReadFile(dir_ / "one/model.safetensors") ==
              ReadFile(dir_ / "three/model.safetensors"));
  ASSERT_TRUE(TryConvert(source(), dir_ / "cut", TargetFormat::kFp4, 32, 2, 30'000).ok());
  EXPECT_TRUE(FilesOf(dir_ / "cut").contains("model.safetensors.index.json"));
  EXPECT_GT(FilesOf(dir_ / "cut").size(), 3u);
  ExpectSameValues(dir_ / "one", dir_ / "cut");
  Convert(dir_ / "cut", dir_ / "whole", TargetFormat::kFp4);
  EXPECT_TRUE(FilesOf(dir_ / "whole").contains("model.safetensors"));
  EXPECT_FALSE(FilesOf(dir_ / "whole").contains("model.safetensors.index.json"));
}

// The errors reported are those of the values that a reader will see.
TEST_F(ConvertModelTest, ReportsTheErrorsThatAreThere) {
  const auto errors = TryConvert(source(), dir_ / "m", TargetFormat::kInt8, 128);
  ASSERT_TRUE(errors.ok()) << errors.status();
  const auto before = *Checkpoint::Open(source());
  const auto after = *Checkpoint::Open(dir_ / "m");
  for (const ConversionError& error : *errors) {
    double worst = 0, squares = 0, values = 0;
    uint64_t elements = 0;
    for (const TensorSpec& spec : TensorSpecs(config_)) {
      if (spec.part != error.part || !MayBeQuantised(spec)) continue;
      const std::vector<float> a = Values(*before, spec), b = Values(*after, spec);
      for (size_t i = 0; i < a.size(); ++i) {
        const double d = double{b[i]} - double{a[i]};
        worst = std::max(worst, std::fabs(d));
        squares += d * d;
        values += double{a[i]} * double{a[i]};
      }
      elements += a.size();
    }
    EXPECT_EQ(error.format, "int8 1x128");
    EXPECT_EQ(error.elements, elements) << error.part;
    EXPECT_EQ(error.max_abs, worst) << error.part;
    EXPECT_NEAR(error.RelativeRms(), std::sqrt(squares / values), 1e-9) << error.part;
    EXPECT_GT(error.RelativeRms(), 1e-3) << error.part;
    EXPECT_LT(error.RelativeRms(), 1e-2) << error.part;
  }
  EXPECT_EQ(errors->size(), 4u);  // mla, dense, routed, shared
}

TEST_F(ConvertModelTest, KeepsOtherFilesUnknownKeysAndUnusedTensors) {
  WriteFile(source() + "/tokenizer.json", "{\"a\":1}");
  WriteFile(source() + "/generation_config.json", "{}");
  WriteFile(source() + "/expertmesh-revision.json", "stale");
  std::string config = ReadFile(source() + "/config.json");
  WriteFile(source() + "/config.json", "{\"later_key\": [1, {\"x\": 0.1}]," + config.substr(1));
  Convert(source(), dir_ / "m", TargetFormat::kFp8Block32);
  EXPECT_EQ(FilesOf(dir_ / "m"), (std::set<std::string>{"config.json", "generation_config.json",
                                                        "model.safetensors", "tokenizer.json"}));
  const std::string text = ReadFile(dir_ / "m/config.json");
  EXPECT_NE(text.find("\"later_key\""), std::string::npos) << text;
  EXPECT_NE(text.find("\"weight_block_size\":[32,32]"), std::string::npos) << text;
  EXPECT_EQ(ConfigJson(*LoadConfig(dir_ / "m")), ConfigJson(config_));
  Convert(dir_ / "m", dir_ / "back", TargetFormat::kF32);
  EXPECT_EQ(ReadFile(dir_ / "back/config.json").find("quantization_config"), std::string::npos);
}

TEST_F(ConvertModelTest, RefusesADirectoryThatExistsAndLeavesItAlone) {
  std::filesystem::create_directory(dir_ / "empty");
  for (const std::string& out : {dir_ / "empty", source()}) {
    const std::set<std::string> before = FilesOf(out);
    const auto errors = TryConvert(source(), out, TargetFormat::kInt8);
    EXPECT_EQ(base::ReasonOf(errors.status()), base::Reason::kInvalidArgument);
    EXPECT_EQ(FilesOf(out), before);
  }
}

TEST_F(ConvertModelTest, ABadTensorOrAStopLeavesNothingBehind) {
  // The first element of the file becomes a NaN.
  std::string bytes = ReadFile(source() + "/model.safetensors");
  const size_t header = 8 + static_cast<uint8_t>(bytes[0]) + 256 * static_cast<uint8_t>(bytes[1]) +
                        65536 * static_cast<uint8_t>(bytes[2]);
  bytes.replace(header, 4, "\xFF\xFF\xFF\x7F");
  std::filesystem::copy(source(), dir_ / "bad");
  WriteFile(dir_ / "bad/model.safetensors", bytes);
  const absl::Status bad = TryConvert(dir_ / "bad", dir_ / "out", TargetFormat::kBf16).status();
  EXPECT_NE(bad.message().find("model.embed_tokens.weight"), std::string::npos) << bad;
  EXPECT_EQ(FilesOf(dir_.path()), (std::set<std::string>{"bad", "f32"}));

  ConvertOptions options;
  options.from = source();
  options.to = dir_ / "out";
  options.format = TargetFormat::kInt8;
  int asked = 0;
  std::set<std::string> seen;
  options.cancelled = [&] {
    seen = FilesOf(dir_.path());
    return ++asked == 5;
  };
  EXPECT_EQ(base::ReasonOf(ConvertModel(options).status()), base::Reason::kCancelled);
  EXPECT_EQ(asked, 5);
  EXPECT_EQ(seen.size(), 3u);  // it was there, under another name
  EXPECT_FALSE(seen.contains("out"));
  EXPECT_EQ(FilesOf(dir_.path()), (std::set<std::string>{"bad", "f32"}));
}

TEST_F(ConvertModelTest, NamesOfFormatsAreReadBack) {
  for (const std::string& name : TargetFormatNames()) {
    EXPECT_EQ(TargetFormatNames()[static_cast<size_t>(*ParseTargetFormat(name))], name);
  }
  EXPECT_NE(ParseTargetFormat("q4_k").status().message().find("fp8-128"), std::string::npos);
}

}  // namespace
}  // namespace expertmesh::model

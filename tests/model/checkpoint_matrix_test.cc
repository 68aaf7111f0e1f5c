// Values and scales of a weight put together, and every way in which they may not fit.
#include "model/checkpoint_matrix.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "model/config_json.h"
#include "services/base/status.h"
#include "tests/support/safetensors_file.h"
#include "tests/support/temp_dir.h"

namespace expertmesh::model {
namespace {

using test_support::TempDir;
using test_support::TensorBytes;

TensorBytes Tensor(const std::string& name, const std::string& type, uint64_t rows,
                   uint64_t columns) {
  size_t size = 1;
  if (type == "F32") size = 4;
  if (type == "F16" || type == "BF16") size = 2;
  return {name, type, {rows, columns}, std::string(rows * columns * size, '\0')};
}

// A directory of these tensors, opened; `quantization` is the value of quantization_config.
std::unique_ptr<Checkpoint> Open(const TempDir& dir, const std::vector<TensorBytes>& tensors,
                                 const std::string& quantization = "null") {
  test_support::WriteFile(dir / "model.safetensors", test_support::SafetensorsBytes(tensors));
  test_support::WriteFile(dir / "config.json", "{\"quantization_config\": " + quantization + "}");
  auto checkpoint = Checkpoint::Open(dir.path());
  EXPECT_TRUE(checkpoint.ok()) << checkpoint.status();
  return std::move(checkpoint).value();
}

struct Case {
  std::vector<TensorBytes> tensors;
  std::string quantization;
  std::string format;
};

// 200 × 100 in every form under every name that the pages know.
TEST(CheckpointMatrix, FindsTheFormFromTypesNamesAndShapes) {
  const Case cases[] = {
      {{Tensor("x.weight", "F32", 200, 100)}, "null", "F32"},
      {{Tensor("x.weight", "F16", 200, 100)}, "null", "F16"},
      {{Tensor("x.weight", "F8_E4M3", 200, 100), Tensor("x.weight_scale_inv", "F32", 2, 1)},
       R"({"quant_method":"fp8","weight_block_size":[128,128]})",
       "fp8 128x128"},
      {{Tensor("x.weight", "F8_E4M3", 200, 100), Tensor("x.weight_scale_inv", "F32", 2, 1)},
       "null",
       "fp8 128x128"},
      {{Tensor("x.weight", "F8_E4M3", 200, 100), Tensor("x.weight_scale_inv", "F8_E8M0", 7, 4)},
       R"({"quant_method":"fp8"})",
       "fp8 32x32"},
      {{Tensor("x.weight", "F8_E4M3", 200, 100), Tensor("x.scale", "F8_E8M0", 2, 1)},
       "null",
       "fp8 128x128"},
      {{Tensor("x.weight", "F8_E4M3", 200, 100), Tensor("x.weight_scale_inv", "F32", 4, 5)},
       R"({"quant_method":"fp8","weight_block_size":[64,20]})",
       "fp8 64x20"},
      {{Tensor("x.weight", "F8_E4M3", 200, 100), Tensor("x.scale", "F8_E8M0", 200, 4)},
       R"({"quant_method":"fp8","weight_block_size":[128,128]})",
       "fp8 1x32"},
      {{Tensor("x.weight", "I8", 200, 50), Tensor("x.scale", "F8_E8M0", 200, 4)},
       R"({"quant_method":"fp8","weight_block_size":[128,128]})",
       "fp4 1x32"},
      {{Tensor("x.weight", "I8", 200, 100), Tensor("x.weight_scale", "F16", 200, 4)},
       R"({"quant_method":"expertmesh","bits":8,"group_size":32})",
       "int8 1x32"},
      {{Tensor("x.weight", "I8", 200, 100), Tensor("x.weight_scale", "F16", 200, 1)},
       "null",
       "int8 1x128"},
      {{Tensor("x.weight", "U8", 200, 50), Tensor("x.weight_scale", "F16", 200, 4)},
       "null",
       "int4 1x32"}};
  for (const Case& c : cases) {
    const TempDir dir;
    const auto matrix = Open(dir, c.tensors, c.quantization)->Matrix("x.weight", 200, 100);
    ASSERT_TRUE(matrix.ok()) << c.format << matrix.status();
    EXPECT_EQ(FormatName(matrix->format), c.format);
    EXPECT_EQ(matrix->rows, 200u);
    EXPECT_EQ(matrix->columns, 100u);
  }
}

TEST(CheckpointMatrix, RefusesWhatDoesNotFitNamingFileAndTensor) {
  const Case cases[] = {
      {{Tensor("y.weight", "F32", 200, 100)}, "null", "\"x.weight\" is missing"},
      {{Tensor("x.weight", "F32", 100, 200)}, "null", "found F32 [100, 200]"},
      {{Tensor("x.weight", "U8", 200, 100), Tensor("x.weight_scale", "F16", 200, 4)},
       "null",
       "expected U8 [200, 50], found U8 [200, 100]"},
      {{Tensor("x.weight", "F8_E4M3", 200, 100)}, "null", "need a scale: F32 or F8_E8M0"},
      {{Tensor("x.weight", "F8_E4M3", 200, 100), Tensor("x.weight_scale_inv", "F16", 2, 1)},
       "null",
       "\"x.weight_scale_inv\": expected F32 or F8_E8M0, found F16 [2, 1]"},
      {{Tensor("x.weight", "F8_E4M3", 200, 100), Tensor("x.weight_scale_inv", "F32", 1, 2)},
       "null",
       "scales of blocks of 128 or 32 over [200, 100], found F32 [1, 2]"},
      {{Tensor("x.weight", "F8_E4M3", 200, 100), Tensor("x.weight_scale_inv", "F32", 2, 1)},
       R"({"quant_method":"fp8","weight_block_size":[32,32]})",
       "scales of blocks of 32 x 32 (weight_block_size)"},
      {{Tensor("x.weight", "I8", 200, 100), Tensor("x.weight_scale", "F16", 200, 4)},
       R"({"quant_method":"expertmesh","bits":8,"group_size":128})",
       "scales of groups of 128 (group_size)"},
      {{Tensor("x.weight", "I8", 200, 50), Tensor("x.scale", "F8_E8M0", 200, 3)},
       "null",
       "scales of groups of 32 over"},
      {{Tensor("x.weight", "F32", 200, 100), Tensor("x.weight_scale", "F16", 200, 4)},
       "null",
       "F32 values have no scale"},
      {{Tensor("x.weight", "F8_E4M3", 200, 100), Tensor("x.weight_scale_inv", "F32", 2, 1),
        Tensor("x.scale", "F8_E8M0", 2, 1)},
       "null",
       "two scales"},
      {{Tensor("x.weight", "F8_E8M0", 200, 100)}, "null", "found F8_E8M0 [200, 100]"}};
  for (const Case& c : cases) {
    const TempDir dir;
    const absl::Status status =
        Open(dir, c.tensors, c.quantization)->Matrix("x.weight", 200, 100).status();
    EXPECT_EQ(base::ReasonOf(status), base::Reason::kBadCheckpoint) << c.format;
    EXPECT_NE(status.message().find(c.format), std::string::npos) << status;
    EXPECT_NE(status.message().find(dir / "model.safetensors"), std::string::npos) << status;
    EXPECT_EQ(status.message().find('\n'), std::string::npos) << status;
  }
}

// Only what docs/model-family.md §3 marks may be quantised, and the head that some publish so.
TEST(CheckpointMatrix, AGateOrNormMayNotBeQuantised) {
  const TempDir dir;
  const auto checkpoint = Open(
      dir, {Tensor("x.weight", "F8_E4M3", 200, 100), Tensor("x.weight_scale_inv", "F32", 2, 1)});
  for (const char* part : {"embedding", "gates", "norms"}) {
    EXPECT_FALSE(MayBeQuantised({"x.weight", {200, 100}, false, part}));
    EXPECT_FALSE(checkpoint->Weight({"x.weight", {200, 100}, false, part}).ok()) << part;
  }
  EXPECT_FALSE(MayBeQuantised({"x.weight", {200, 100}, false, "head"}));
  for (const char* part : {"mla", "dense_ffn", "routed_experts", "shared_experts", "head"}) {
    EXPECT_TRUE(checkpoint->Weight({"x.weight", {200, 100}, false, part}).ok()) << part;
  }
}

absl::StatusOr<Quantization> Parse(const std::string& text) {
  return ParseQuantization(*ParseJson(text, base::Reason::kBadConfig));
}

TEST(ParseQuantization, ReadsBlocksAndGroups) {
  const auto fp8 = Parse(R"({"quant_method":"fp8","fmt":"e4m3","activation_scheme":"dynamic",)"
                         R"("scale_fmt":"ue8m0","weight_block_size":[128,64]})");
  ASSERT_TRUE(fp8.ok()) << fp8.status();
  EXPECT_EQ(fp8->block_rows, 128u);
  EXPECT_EQ(fp8->block_columns, 64u);
  const auto own = Parse(R"({"quant_method":"expertmesh","bits":4,"group_size":128})");
  ASSERT_TRUE(own.ok()) << own.status();
  EXPECT_EQ(own->group_size, 128u);
}

TEST(ParseQuantization, SaysWhatIsUnsupportedAndWhatIsNot) {
  for (const std::string text :
       {R"({"quant_method":"gptq","bits":4})", R"({"quant_method":"awq"})", R"({"bits":8})",
        R"({"quant_method":5})", R"("fp8")", R"([])", R"({"quant_method":"fp8","fmt":"e5m2"})",
        R"({"quant_method":"fp8","weight_block_size":[128]})",
        R"({"quant_method":"fp8","weight_block_size":[0,128]})",
        R"({"quant_method":"fp8","weight_block_size":[128,1e3]})",
        R"({"quant_method":"fp8","weight_block_size":128})",
        R"({"quant_method":"expertmesh","bits":3,"group_size":32})",
        R"({"quant_method":"expertmesh","bits":8,"group_size":64})",
        R"({"quant_method":"expertmesh","bits":8})"}) {
    const absl::Status status = Parse(text).status();
    EXPECT_EQ(base::ReasonOf(status), base::Reason::kBadConfig) << text;
    EXPECT_NE(status.message().find("supported are"), std::string::npos) << status;
    EXPECT_EQ(status.message().find('\n'), std::string::npos) << status;
  }
  EXPECT_NE(Parse(R"({"quant_method":"gptq"})").status().message().find("\"gptq\""),
            std::string::npos);
}

TEST(ParseQuantization, AnUnknownSchemeStopsTheCheckpointNamingTheFile) {
  const TempDir dir;
  test_support::WriteFile(dir / "model.safetensors",
                          test_support::SafetensorsBytes({Tensor("a", "F32", 1, 1)}));
  test_support::WriteFile(dir / "config.json", R"({"quantization_config":{"quant_method":"awq"}})");
  const absl::Status status = Checkpoint::Open(dir.path()).status();
  EXPECT_EQ(base::ReasonOf(status), base::Reason::kBadConfig);
  EXPECT_NE(status.message().find(dir / "config.json"), std::string::npos) << status;
}

}  // namespace
}  // namespace expertmesh::model

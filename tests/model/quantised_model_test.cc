// The runtime on quantised checkpoints: the bits are those of the decoded values.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>

#include "model/checkpoint.h"
#include "model/kernels/fp8_layout.h"
#include "model/local_experts.h"
#include "model/reference.h"
#include "model/writer/converter.h"
#include "services/base/status.h"
#include "tests/support/model_runner.h"
#include "tests/support/temp_dir.h"
#include "tests/support/tiny_checkpoint.h"

namespace expertmesh::model {
namespace {

using test_support::AwkwardConfig;
using test_support::LoadExperts;
using test_support::TempDir;

void Convert(const std::string& from, const std::string& to, TargetFormat format) {
  ConvertOptions options;
  options.from = from;
  options.to = to;
  options.format = format;
  const auto errors = ConvertModel(options);
  ASSERT_TRUE(errors.ok()) << errors.status();
}

std::vector<uint32_t> Logits(const std::string& directory, const std::string& profile) {
  base::ThreadPool pool(1);
  const auto model = test_support::LoadModel(directory, profile);
  const auto experts = LoadExperts(directory, profile, {{0, model->config().n_routed_experts}});
  LocalExperts local(*experts, pool);
  const std::vector<std::vector<uint32_t>> lanes = {
      test_support::RandomTokens(model->config(), 40, 3)};
  const size_t chunk = 16;
  return test_support::RunLanes(*model, local, pool, lanes, std::span(&chunk, 1))[0].logits;
}

// sqrt(Σ (a − b)² / Σ (a − mean a)²): the distance in standard deviations of the logits.
double Distance(const std::vector<uint32_t>& expected, const std::vector<uint32_t>& got) {
  std::vector<float> a(expected.size()), b(got.size());
  std::memcpy(a.data(), expected.data(), a.size() * sizeof(float));
  std::memcpy(b.data(), got.data(), b.size() * sizeof(float));
  double mean = 0;
  for (const float v : a) mean += v / static_cast<double>(a.size());
  double error = 0, spread = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    error += (double{a[i]} - b[i]) * (double{a[i]} - b[i]);
    spread += (a[i] - mean) * (a[i] - mean);
  }
  return std::sqrt(error / spread);
}

struct Form {
  const char* name;
  TargetFormat format;
  double distance;  // of the logits from those of f32, in σ: at most; at least a fiftieth of it
};
constexpr Form kForms[] = {{"fp8_128", TargetFormat::kFp8Block128, 0.25},
                           {"fp8_32", TargetFormat::kFp8Block32, 0.25},
                           {"fp4", TargetFormat::kFp4, 0.35},
                           {"int8", TargetFormat::kInt8, 0.09},
                           {"int4", TargetFormat::kInt4, 0.6}};

class QuantisedModelTest : public testing::TestWithParam<Form> {
 protected:
  static void SetUpTestSuite() {
    dir_ = std::make_unique<TempDir>();
    test_support::WriteTinyModel(*dir_ / "f32", AwkwardConfig());
  }
  static void TearDownTestSuite() { dir_.reset(); }
  void SetUp() override {
    quantised_ = *dir_ / GetParam().name;
    decoded_ = quantised_ + "-decoded";
    if (std::filesystem::exists(decoded_)) return;
    Convert(*dir_ / "f32", quantised_, GetParam().format);
    Convert(quantised_, decoded_, TargetFormat::kF32);
  }

  static std::unique_ptr<TempDir> dir_;
  std::string quantised_;
  std::string decoded_;
};
std::unique_ptr<TempDir> QuantisedModelTest::dir_;

INSTANTIATE_TEST_SUITE_P(Forms, QuantisedModelTest, testing::ValuesIn(kForms),
                         [](const auto& info) { return std::string(info.param.name); });

TEST_P(QuantisedModelTest, GivesTheBitsOfItsDecodedValuesInBothProfiles) {
  EXPECT_TRUE(Logits(quantised_, "exact-f32") == Logits(decoded_, "exact-f32"));
  EXPECT_TRUE(Logits(quantised_, "bf16") == Logits(decoded_, "bf16"));
}

TEST_P(QuantisedModelTest, LogitsStayWithinAStatedDistanceOfF32) {
  const double distance =
      Distance(Logits(*dir_ / "f32", "exact-f32"), Logits(quantised_, "exact-f32"));
  EXPECT_LE(distance, GetParam().distance);
  EXPECT_GE(distance, GetParam().distance / 50);  // the weights did change
  RecordProperty("distance", std::to_string(distance));
}

// In memory too: 18 bytes of 32 four-bit weights, where int8 has 34.
TEST_P(QuantisedModelTest, FourBitExpertsTakeFourBits) {
  const auto bytes = [](const std::string& directory) {
    return static_cast<double>(LoadExperts(directory, "int8", {{0, 24}})->weight_bytes());
  };
  const bool four =
      GetParam().format == TargetFormat::kFp4 || GetParam().format == TargetFormat::kInt4;
  EXPECT_NEAR(bytes(quantised_) / bytes(decoded_), four ? 18.0 / 34 : 1.0, 0.001);
}

// What is left is the rounding of rows, and of weights that are neither int8 nor four bits.
TEST_P(QuantisedModelTest, TheInt8ProfileIsCloseToTheDecodedValues) {
  EXPECT_LE(Distance(Logits(decoded_, "exact-f32"), Logits(quantised_, "int8")), 0.12);
}

TEST_P(QuantisedModelTest, TheReferenceReadsItToo) {
  const std::vector<uint32_t> tokens = {1, 2, 3, 4};
  const auto quantised = ReferenceModel::Load(quantised_);
  const auto decoded = ReferenceModel::Load(decoded_);
  ASSERT_TRUE(quantised.ok()) << quantised.status();
  ASSERT_TRUE(decoded.ok()) << decoded.status();
  EXPECT_EQ((*quantised)->Forward(tokens), (*decoded)->Forward(tokens));
}

TEST_P(QuantisedModelTest, AnotherStorageIsAnotherRevision) {
  const auto original = Checkpoint::Open(*dir_ / "f32");
  const auto quantised = Checkpoint::Open(quantised_);
  const auto decoded = Checkpoint::Open(decoded_);
  EXPECT_NE(*(*original)->Revision(), *(*quantised)->Revision());
  EXPECT_NE(*(*decoded)->Revision(), *(*quantised)->Revision());
}

// In the profile bf16 fp8 stays in eight bits, with the bits of bf16.
TEST(Fp8Test, StaysInEightBits) {
  const TempDir dir;
  Config config = AwkwardConfig();
  config.hidden_size = 160;
  config.moe_intermediate_size = 96;
  test_support::WriteTinyModel(dir / "f32", config);
  Convert(dir / "f32", dir / "fp8", TargetFormat::kFp8Block128);
  Convert(dir / "fp8", dir / "decoded", TargetFormat::kF32);
  const auto bytes = [](const std::string& directory) {
    return static_cast<double>(LoadExperts(directory, "bf16", {{0, 24}})->weight_bytes());
  };
  // Gate and up of width 160, down of width 96.
  const double panels = 2 * 6.0 * Fp8PanelBytes(160) + 10.0 * Fp8PanelBytes(96);
  EXPECT_NEAR(bytes(dir / "fp8") / bytes(dir / "decoded"),
              panels / (3.0 * 160 * 96 * sizeof(uint16_t)), 1e-6);
  EXPECT_TRUE(Logits(dir / "fp8", "bf16") == Logits(dir / "decoded", "bf16"));
}

// Overwrites the first scale of one expert with a NaN, in whatever form it stands.
void SpoilExpert(const std::string& directory, uint32_t expert) {
  const auto checkpoint = Checkpoint::Open(directory);
  ASSERT_TRUE(checkpoint.ok());
  const std::string name =
      "model.layers.1.mlp.experts." + std::to_string(expert) + ".up_proj.weight";
  const TensorView* scales = (*checkpoint)->Find((*checkpoint)->ScalesOf(name).at(0));
  const auto* begin = (*checkpoint)->tensors().begin()->second.bytes.data();
  for (const auto& [other, view] : (*checkpoint)->tensors())
    begin = std::min(begin, view.bytes.data());
  std::fstream file(directory + "/model.safetensors",
                    std::ios::binary | std::ios::in | std::ios::out);
  uint64_t header = 0;
  file.read(reinterpret_cast<char*>(&header), sizeof(header));
  file.seekp(static_cast<std::streamoff>(8 + header) + (scales->bytes.data() - begin));
  file.write("\xFF\xFF\xFF\xFF", static_cast<std::streamsize>(TensorTypeBytes(scales->type)));
}

TEST_P(QuantisedModelTest, AnExpertSliceReadsItsOwnExpertsOnly) {
  const TempDir copy;
  std::filesystem::copy(quantised_, copy / "m", std::filesystem::copy_options::recursive);
  SpoilExpert(copy / "m", 13);
  ExpertSlice::Options options;
  options.directory = copy / "m";
  options.profile = "exact-f32";
  options.experts = {{0, 8}, {16, 24}};
  EXPECT_TRUE(ExpertSlice::Load(options).ok()) << ExpertSlice::Load(options).status();
  options.experts = {{8, 16}};
  const absl::Status status = ExpertSlice::Load(options).status();
  EXPECT_EQ(base::ReasonOf(status), base::Reason::kBadCheckpoint);
  EXPECT_NE(status.message().find("experts.13.up_proj.weight"), std::string::npos) << status;
  EXPECT_NE(status.message().find("model.safetensors"), std::string::npos) << status;
}

TEST_P(QuantisedModelTest, SlicesGiveTheBitsOfTheWhole) {
  base::ThreadPool pool(1);
  const auto model = test_support::LoadModel(quantised_, "bf16");
  const std::vector<std::vector<uint32_t>> lanes = {
      test_support::RandomTokens(model->config(), 20, 5)};
  const size_t chunk = 20;
  const auto whole = LoadExperts(quantised_, "bf16", {{0, 24}});
  LocalExperts local(*whole, pool);
  const auto expected = test_support::RunLanes(*model, local, pool, lanes, std::span(&chunk, 1));
  const auto low = LoadExperts(quantised_, "bf16", {{0, 16}});
  const auto high = LoadExperts(quantised_, "bf16", {{16, 24}});
  std::vector<uint16_t> owners(24, 0);
  std::fill(owners.begin() + 16, owners.end(), uint16_t{1});
  test_support::SlicedExperts sliced({low.get(), high.get()}, owners, pool);
  EXPECT_EQ(test_support::RunLanes(*model, sliced, pool, lanes, std::span(&chunk, 1)), expected);
}

TEST(Float16Model, GivesTheBitsOfItsWidenedValues) {
  const TempDir dir;
  Config config = AwkwardConfig();
  test_support::WriteTinyModel(dir / "f32", config);
  // An F16 copy: every float tensor of the F32 file, narrowed by hand.
  const auto f32 = Checkpoint::Open(dir / "f32");
  ASSERT_TRUE(f32.ok());
  std::string header, data;
  for (const auto& [name, view] : (*f32)->tensors()) {
    const size_t begin = data.size();
    for (size_t i = 0; i < view.bytes.size(); i += 4) {
      float value = 0;
      std::memcpy(&value, view.bytes.data() + i, 4);
      const auto narrow = static_cast<_Float16>(value);
      data.append(reinterpret_cast<const char*>(&narrow), 2);
    }
    std::string shape;
    for (const uint64_t n : view.shape) shape += (shape.empty() ? "" : ",") + std::to_string(n);
    header += (header.empty() ? "{\"" : ",\"") + name + "\":{\"dtype\":\"F16\",\"shape\":[" +
              shape + "],\"data_offsets\":[" + std::to_string(begin) + "," +
              std::to_string(data.size()) + "]}";
  }
  header += "}";
  const uint64_t length = header.size();
  config.torch_dtype = "float16";
  std::filesystem::create_directory(dir / "f16");
  test_support::WriteFile(dir / "f16/config.json", ConfigJson(config));
  test_support::WriteFile(dir / "f16/model.safetensors",
                          std::string(reinterpret_cast<const char*>(&length), 8) + header + data);
  Convert(dir / "f16", dir / "widened", TargetFormat::kF32);
  EXPECT_TRUE(Logits(dir / "f16", "exact-f32") == Logits(dir / "widened", "exact-f32"));
  EXPECT_TRUE(Logits(dir / "f16", "bf16") == Logits(dir / "widened", "bf16"));
  EXPECT_FALSE(Logits(dir / "f16", "exact-f32") == Logits(dir / "f32", "exact-f32"));
}

}  // namespace
}  // namespace expertmesh::model

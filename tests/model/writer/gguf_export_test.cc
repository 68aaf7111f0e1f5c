#include "model/writer/gguf_export.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <map>

#include "model/config.h"
#include "model/formats/scalar.h"
#include "model/kernels/bf16.h"
#include "model/tokenizer/tokenizer.h"
#include "model/writer/model_writer.h"
#include "model/writer/presets.h"
#include "services/base/status.h"
#include "tests/support/temp_dir.h"

namespace expertmesh::model {
namespace {

using test_support::ReadFile;
using test_support::TempDir;

std::string Preset(const TempDir& dir, const std::string& name) {
  WriteOptions options;
  options.directory = dir / name;
  options.seed = 1;
  const absl::Status status = WriteModel(*FindPreset(name), options);
  EXPECT_TRUE(status.ok()) << status;
  return options.directory;
}

// Reads what the writer writes; written from docs/formats.md §7.4 alone.
class GgufFile {
 public:
  struct Tensor {
    std::vector<uint64_t> dims;  // innermost first
    uint32_t type = 0;
    uint64_t offset = 0;
  };

  explicit GgufFile(const std::string& path) : bytes_(ReadFile(path)) {
    EXPECT_EQ(bytes_.substr(0, 4), "GGUF");
    at_ = 4;
    EXPECT_EQ(Take<uint32_t>(), 3u);
    const auto tensor_count = Take<uint64_t>();
    const auto key_count = Take<uint64_t>();
    for (uint64_t i = 0; i < key_count; ++i) {
      const std::string key = TakeString();
      ReadValue(key, Take<uint32_t>());
    }
    for (uint64_t i = 0; i < tensor_count; ++i) {
      const std::string name = TakeString();
      Tensor tensor;
      tensor.dims.resize(Take<uint32_t>());
      for (uint64_t& dim : tensor.dims) dim = Take<uint64_t>();
      tensor.type = Take<uint32_t>();
      tensor.offset = Take<uint64_t>();
      EXPECT_EQ(tensor.offset % 32, 0u) << name;
      EXPECT_TRUE(tensors.emplace(name, tensor).second) << name << " stands there twice";
    }
    data_ = (at_ + 31) / 32 * 32;
  }

  std::vector<float> Values(const std::string& name) const {
    const Tensor& tensor = tensors.at(name);
    uint64_t count = 1;
    for (const uint64_t dim : tensor.dims) count *= dim;
    const char* data = bytes_.data() + data_ + tensor.offset;
    std::vector<float> values(count);
    for (uint64_t i = 0; i < count; ++i) values[i] = Value(data, tensor.type, i);
    return values;
  }

  std::map<std::string, Tensor> tensors;
  std::map<std::string, double> numbers;
  std::map<std::string, std::string> strings;
  std::map<std::string, std::vector<std::string>> lists;
  std::map<std::string, std::vector<int32_t>> integers;

 private:
  template <class T>
  T Take() {
    T value;
    std::memcpy(&value, bytes_.data() + at_, sizeof(T));
    at_ += sizeof(T);
    return value;
  }
  std::string TakeString() {
    const auto size = Take<uint64_t>();
    at_ += size;
    return bytes_.substr(at_ - size, size);
  }
  void ReadValue(const std::string& key, uint32_t type) {
    if (type == 4) numbers[key] = Take<uint32_t>();
    if (type == 6) numbers[key] = Take<float>();
    if (type == 7) numbers[key] = Take<uint8_t>();
    if (type == 8) strings[key] = TakeString();
    if (type != 9) return;
    const auto element = Take<uint32_t>();
    const auto count = Take<uint64_t>();
    for (uint64_t i = 0; i < count; ++i) {
      if (element == 8) lists[key].push_back(TakeString());
      if (element == 5) integers[key].push_back(Take<int32_t>());
    }
  }
  static float Value(const char* data, uint32_t type, uint64_t i) {
    uint16_t half = 0;
    float value = 0;
    if (type == 0) {
      std::memcpy(&value, data + i * 4, 4);
    } else if (type == 30) {
      std::memcpy(&half, data + i * 2, 2);
      value = WidenBf16(half);
    } else {
      EXPECT_EQ(type, 8u);
      const char* block = data + i / 32 * 34;
      std::memcpy(&half, block, 2);
      value = DecodeF16(half) * static_cast<float>(static_cast<int8_t>(block[2 + i % 32]));
    }
    return value;
  }

  std::string bytes_;
  size_t at_ = 0;
  size_t data_ = 0;
};

class GgufExportTest : public testing::Test {
 protected:
  GgufExportTest() : config_(*LoadConfig(model_)), checkpoint_(*Checkpoint::Open(model_)) {}

  GgufFile Export(GgmlType type, KvbForm kv_b, int threads = 2) {
    const auto summary = TryExport(model_, type, kv_b, threads);
    EXPECT_TRUE(summary.ok()) << summary.status();
    GgufFile file(path());
    EXPECT_EQ(summary->tensors, file.tensors.size());
    EXPECT_EQ(summary->bytes, std::filesystem::file_size(path()));
    return file;
  }
  absl::StatusOr<GgufSummary> TryExport(const std::string& directory, GgmlType type,
                                        KvbForm kv_b = KvbForm::kSplit, int threads = 1) {
    std::filesystem::remove(path());
    GgufOptions options;
    options.directory = directory;
    options.file = path();
    options.type = type;
    options.kv_b = kv_b;
    options.threads = threads;
    return ExportGguf(options);
  }

  std::vector<float> Source(const std::string& name) const {
    for (const TensorSpec& spec : TensorSpecs(config_)) {
      if (spec.name != name) continue;
      const StoredMatrix matrix = *checkpoint_->Weight(spec);
      std::vector<float> values(matrix.rows * matrix.columns);
      EXPECT_TRUE(DecodeRows(matrix, 0, matrix.rows, values.data()).ok());
      return values;
    }
    ADD_FAILURE() << name;
    return {};
  }

  std::string path() const { return dir_ / "model.gguf"; }

  TempDir models_;
  TempDir dir_;
  const std::string model_ = Preset(models_, "tiny-v3");
  Config config_;
  std::unique_ptr<Checkpoint> checkpoint_;
};

TEST_F(GgufExportTest, EveryValueArrivesUnderItsName) {
  const GgufFile file = Export(GgmlType::kF32, KvbForm::kJoined);
  EXPECT_EQ(file.Values("token_embd.weight"), Source("model.embed_tokens.weight"));
  EXPECT_EQ(file.Values("output.weight"), Source("lm_head.weight"));
  EXPECT_EQ(file.Values("output_norm.weight"), Source("model.norm.weight"));
  EXPECT_EQ(file.Values("blk.0.ffn_up.weight"), Source("model.layers.0.mlp.up_proj.weight"));
  EXPECT_EQ(file.Values("blk.4.attn_kv_b.weight"),
            Source("model.layers.4.self_attn.kv_b_proj.weight"));
  EXPECT_EQ(file.Values("blk.2.exp_probs_b.bias"),
            Source("model.layers.2.mlp.gate.e_score_correction_bias"));
  // Experts one after another: [experts, hidden, width].
  const std::vector<float> stacked = file.Values("blk.3.ffn_down_exps.weight");
  const std::vector<float> expert = Source("model.layers.3.mlp.experts.7.down_proj.weight");
  EXPECT_TRUE(std::equal(expert.begin(), expert.end(), stacked.begin() + 7 * expert.size()));
  EXPECT_EQ(file.tensors.at("blk.3.ffn_down_exps.weight").dims,
            (std::vector<uint64_t>{config_.moe_intermediate_size, config_.hidden_size,
                                   config_.n_routed_experts}));
  uint64_t elements = 0;
  for (const auto& [name, tensor] : file.tensors) elements += file.Values(name).size();
  EXPECT_EQ(elements, 1'114'048u);  // docs/model-family.md §6: nothing missing, nothing twice
}

// docs/model-family.md §6: the absorbed products want keys transposed.
TEST_F(GgufExportTest, SplitFormHoldsKeysTransposedAndValuesAsTheyAre) {
  const GgufFile file = Export(GgmlType::kF32, KvbForm::kSplit);
  const uint64_t dn = config_.qk_nope_head_dim;
  const uint64_t dv = config_.v_head_dim;
  const uint64_t r = config_.kv_lora_rank;
  const std::vector<float> source = Source("model.layers.1.self_attn.kv_b_proj.weight");
  const std::vector<float> keys = file.Values("blk.1.attn_k_b.weight");
  const std::vector<float> values = file.Values("blk.1.attn_v_b.weight");
  ASSERT_EQ(keys.size() + values.size(), source.size());
  EXPECT_EQ(file.tensors.count("blk.1.attn_kv_b.weight"), 0u);
  for (uint64_t head = 0; head < config_.num_attention_heads; ++head) {
    const float* rows = source.data() + head * (dn + dv) * r;
    for (uint64_t c = 0; c < r; ++c) {
      for (uint64_t k = 0; k < dn; ++k) {
        ASSERT_EQ(keys[(head * r + c) * dn + k], rows[k * r + c]);
      }
      for (uint64_t v = 0; v < dv; ++v) {
        ASSERT_EQ(values[(head * dv + v) * r + c], rows[(dn + v) * r + c]);
      }
    }
  }
}

TEST_F(GgufExportTest, KeysAreThoseOfTheArchitecture) {
  const GgufFile split = Export(GgmlType::kBf16, KvbForm::kSplit);
  EXPECT_EQ(split.strings.at("general.architecture"), "deepseek2");
  const auto number = [&](const std::string& key) { return split.numbers.at("deepseek2." + key); };
  EXPECT_EQ(number("block_count"), 5);
  EXPECT_EQ(number("attention.head_count_kv"), 1);
  EXPECT_EQ(number("attention.key_length"), 40);      // latent and rope
  EXPECT_EQ(number("attention.value_length"), 32);    // latent
  EXPECT_EQ(number("attention.key_length_mla"), 32);  // of a head
  EXPECT_EQ(number("attention.value_length_mla"), 40);
  EXPECT_EQ(number("expert_gating_func"), 2);
  EXPECT_EQ(number("expert_group_count"), 4);
  EXPECT_EQ(number("expert_group_used_count"), 3);
  EXPECT_EQ(number("expert_weights_scale"), 2.5);
  EXPECT_EQ(number("leading_dense_block_count"), 1);
  EXPECT_EQ(split.tensors.at("blk.1.ffn_gate_inp.weight").type, 0u);
  EXPECT_EQ(split.tensors.at("blk.1.attn_q_a.weight").type, 30u);
  const GgufFile joined = Export(GgmlType::kBf16, KvbForm::kJoined);
  EXPECT_EQ(joined.numbers.at("deepseek2.attention.head_count_kv"), 4);
  EXPECT_EQ(joined.numbers.at("deepseek2.attention.key_length"), 32);
  EXPECT_EQ(joined.numbers.at("deepseek2.attention.value_length"), 40);
  EXPECT_EQ(joined.numbers.count("deepseek2.attention.key_length_mla"), 0u);
}

TEST_F(GgufExportTest, Q8HoldsTheNumbersOfInt8Groups) {
  const GgufFile file = Export(GgmlType::kQ8_0, KvbForm::kSplit);
  EXPECT_EQ(file.tensors.at("blk.1.attn_k_b.weight").type, 30u);  // rows of 24: no whole block
  EXPECT_EQ(file.tensors.at("blk.1.attn_v_b.weight").type, 8u);
  const std::vector<float> source = Source("model.layers.0.mlp.gate_proj.weight");
  const std::vector<float> stored = file.Values("blk.0.ffn_gate.weight");
  ASSERT_EQ(stored.size(), source.size());
  for (size_t i = 0; i < source.size(); i += 32) {
    float amax = 0;
    for (size_t j = 0; j < 32; ++j) amax = std::max(amax, std::fabs(source[i + j]));
    const float scale = DecodeF16(EncodeF16(amax / 127));
    for (size_t j = 0; j < 32; ++j) {
      ASSERT_EQ(stored[i + j], std::nearbyintf(source[i + j] / scale) * scale);
    }
  }
}

TEST_F(GgufExportTest, TokenizerHasEveryIdAndEveryMerge) {
  const GgufFile file = Export(GgmlType::kBf16, KvbForm::kSplit);
  const auto tokenizer = *Tokenizer::Load(model_);
  const std::vector<std::string>& tokens = file.lists.at("tokenizer.ggml.tokens");
  const std::vector<int32_t>& types = file.integers.at("tokenizer.ggml.token_type");
  ASSERT_EQ(tokens.size(), config_.vocab_size);
  ASSERT_EQ(types.size(), config_.vocab_size);
  for (uint32_t id = 0; id < config_.vocab_size; ++id) {
    const auto found = tokenizer->IdOf(tokens[id]);
    EXPECT_EQ(found.has_value(), types[id] != 5) << tokens[id];
    EXPECT_EQ(found.value_or(id), id);
    EXPECT_EQ(types[id] == 3, tokenizer->IsSpecial(id)) << tokens[id];
  }
  EXPECT_FALSE(file.lists.at("tokenizer.ggml.merges").empty());
  EXPECT_EQ(file.strings.at("tokenizer.ggml.pre"), "deepseek-v3");
  EXPECT_EQ(file.numbers.at("tokenizer.ggml.bos_token_id"), *config_.bos_token_id);
}

TEST_F(GgufExportTest, ThreadsDoNotChangeTheBytes) {
  Export(GgmlType::kQ8_0, KvbForm::kSplit, 1);
  const std::string one = ReadFile(path());
  Export(GgmlType::kQ8_0, KvbForm::kSplit, 3);
  EXPECT_TRUE(one == ReadFile(path()));
}

TEST_F(GgufExportTest, SaysThatItsEpsilonIsAnother) {
  EXPECT_TRUE(TryExport(model_, GgmlType::kBf16)->differs_in_epsilon);  // tiny-v3 has 1e-3
}

TEST_F(GgufExportTest, RefusesWhatTheArchitectureHasNoPlaceFor) {
  Config config = config_;
  EXPECT_TRUE(CheckGgufExport(config).ok());
  config.hc_mult = 4;
  EXPECT_EQ(base::ReasonOf(CheckGgufExport(config)), base::Reason::kUnsupported);
  config = config_;
  config.indexer.emplace();
  EXPECT_EQ(base::ReasonOf(CheckGgufExport(config)), base::Reason::kUnsupported);
  config = config_;
  config.engram.emplace();
  EXPECT_EQ(base::ReasonOf(CheckGgufExport(config)), base::Reason::kUnsupported);
  config = config_;
  config.attention_bias = true;
  EXPECT_EQ(base::ReasonOf(CheckGgufExport(config)), base::Reason::kUnsupported);
  config = config_;
  config.rope_scaling.emplace();
  config.rope_scaling->mscale = 0.7;
  config.rope_scaling->mscale_all_dim = 1.0;
  EXPECT_EQ(base::ReasonOf(CheckGgufExport(config)), base::Reason::kUnsupported);
  config.rope_scaling->mscale = 1.0;
  EXPECT_TRUE(CheckGgufExport(config).ok());
}

TEST_F(GgufExportTest, LeavesNothingOfWhatItCouldNotFinish) {
  const std::string full_model = Preset(models_, "tiny");
  const auto refused = TryExport(full_model, GgmlType::kBf16);
  EXPECT_EQ(base::ReasonOf(refused.status()), base::Reason::kUnsupported);
  GgufOptions options;
  options.directory = model_;
  options.file = path();
  options.cancelled = [] { return true; };
  EXPECT_EQ(base::ReasonOf(ExportGguf(options).status()), base::Reason::kCancelled);
  EXPECT_TRUE(std::filesystem::is_empty(dir_ / ""));
  test_support::WriteFile(path(), "mine");
  options.cancelled = nullptr;
  EXPECT_EQ(base::ReasonOf(ExportGguf(options).status()), base::Reason::kInvalidArgument);
  EXPECT_EQ(ReadFile(path()), "mine");
}

}  // namespace
}  // namespace expertmesh::model

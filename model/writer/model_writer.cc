#include "model/writer/model_writer.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "model/checkpoint.h"
#include "model/checkpoint_files.h"
#include "model/kernels/bf16.h"
#include "model/tokenizer/preset_writer.h"
#include "model/writer/aside_directory.h"
#include "model/writer/random_weights.h"
#include "model/writer/weight_files.h"
#include "services/base/status.h"
#include "services/base/thread_pool.h"

namespace expertmesh::model {
namespace {

constexpr size_t kBlock = 4096;             // elements drawn at once by one thread
constexpr size_t kChunk = size_t{1} << 22;  // elements in memory at once; a multiple of kBlock

// Draws one tensor chunk by chunk and appends its stored bytes to a file.
class TensorWriter {
 public:
  TensorWriter(WeightStyle style, const WriteOptions& options, WeightFiles& files)
      : style_(style), options_(options), files_(files), pool_(options.threads) {}

  absl::Status Append(const TensorSpec& spec, size_t tensor, TensorType type) {
    const Distribution distribution = DistributionOf(spec, style_);
    const uint64_t count = ElementCount(spec.shape);
    for (uint64_t first = 0; first < count; first += kChunk) {
      if (options_.cancelled && options_.cancelled()) {
        return base::Error(base::Reason::kCancelled, "stopped; nothing is left behind");
      }
      const size_t size = static_cast<size_t>(std::min<uint64_t>(kChunk, count - first));
      buffer_.resize(size * TensorTypeBytes(type));
      pool_.ParallelFor((size + kBlock - 1) / kBlock, 1, [&](size_t begin, size_t end, int) {
        for (size_t block = begin; block < end; ++block) {
          const size_t at = block * kBlock;
          std::array<float, kBlock> values;
          const std::span<float> part(values.data(), std::min(kBlock, size - at));
          FillRandom(options_.seed, spec.name, distribution, first + at, part);
          Store(part, type, at);
        }
      });
      EM_RETURN_IF_ERROR(files_.Append(tensor, std::as_bytes(std::span(buffer_))));
      done_bytes_ += buffer_.size();
      if (options_.progress) options_.progress(done_bytes_, files_.total_bytes());
    }
    return absl::OkStatus();
  }

 private:
  void Store(std::span<const float> values, TensorType type, size_t at) {
    if (type == TensorType::kF32) {
      std::memcpy(buffer_.data() + at * sizeof(float), values.data(), values.size_bytes());
      return;
    }
    for (size_t i = 0; i < values.size(); ++i) {
      const uint16_t narrow = NarrowBf16(values[i]);
      std::memcpy(buffer_.data() + (at + i) * sizeof(narrow), &narrow, sizeof(narrow));
    }
  }

  const WeightStyle style_;
  const WriteOptions& options_;
  WeightFiles& files_;
  uint64_t done_bytes_ = 0;
  base::ThreadPool pool_;
  std::vector<char> buffer_;
};

absl::Status WriteWeights(const Config& config, WeightStyle style, const WriteOptions& options,
                          const std::string& directory) {
  const TensorType type = config.torch_dtype == "float32" ? TensorType::kF32 : TensorType::kBf16;
  const std::vector<TensorSpec> specs = TensorSpecs(config);
  std::vector<StoredTensor> tensors;
  for (const TensorSpec& spec : specs) {
    tensors.push_back({spec.name, spec.always_f32 ? TensorType::kF32 : type, spec.shape});
  }
  EM_ASSIGN_OR_RETURN(WeightFiles files,
                      WeightFiles::Create(directory, tensors, options.shard_bytes));
  TensorWriter writer(style, options, files);
  for (size_t i = 0; i < specs.size(); ++i) {
    EM_RETURN_IF_ERROR(writer.Append(specs[i], i, tensors[i].type));
  }
  return files.Finish();
}

std::string GenerationConfigJson(const Config& config) {
  std::string json = "{\n";
  if (config.bos_token_id)
    absl::StrAppend(&json, "  \"bos_token_id\": ", *config.bos_token_id, ",\n");
  if (!config.eos_token_ids.empty()) {
    absl::StrAppend(&json, "  \"eos_token_id\": [", absl::StrJoin(config.eos_token_ids, ", "),
                    "],\n");
  }
  if (config.pad_token_id)
    absl::StrAppend(&json, "  \"pad_token_id\": ", *config.pad_token_id, ",\n");
  return json + "  \"do_sample\": true,\n  \"temperature\": 1.0,\n  \"top_p\": 1.0\n}\n";
}

absl::Status WriteAll(const Config& config, WeightStyle style, const WriteOptions& options,
                      const std::string& directory) {
  EM_RETURN_IF_ERROR(WriteTextFile(JoinPath(directory, "config.json"), ConfigJson(config)));
  EM_RETURN_IF_ERROR(
      WriteTextFile(JoinPath(directory, "generation_config.json"), GenerationConfigJson(config)));
  EM_RETURN_IF_ERROR(WritePresetTokenizer(directory, config.vocab_size));
  return WriteWeights(config, style, options, directory);
}

}  // namespace

absl::Status WriteModel(const Config& config, WeightStyle style, const WriteOptions& options) {
  EM_ASSIGN_OR_RETURN(AsideDirectory aside, AsideDirectory::Create(options.directory));
  EM_RETURN_IF_ERROR(WriteAll(config, style, options, aside.path()));
  return aside.Commit();
}

}  // namespace expertmesh::model

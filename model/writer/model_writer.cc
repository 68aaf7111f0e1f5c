#include "model/writer/model_writer.h"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "model/checkpoint.h"
#include "model/kernels/bf16.h"
#include "model/tokenizer/preset_writer.h"
#include "model/writer/random_weights.h"
#include "model/writer/safetensors_layout.h"
#include "services/base/status.h"
#include "services/base/thread_pool.h"

namespace expertmesh::model {
namespace {

namespace fs = std::filesystem;

constexpr size_t kBlock = 4096;             // elements drawn at once by one thread
constexpr size_t kChunk = size_t{1} << 22;  // elements in memory at once; a multiple of kBlock

absl::Status CannotWrite(const fs::path& path, const std::string& why) {
  return base::Error(base::Reason::kInvalidArgument,
                     absl::StrCat("cannot write ", path.string(), ": ", why));
}

absl::Status WriteText(const fs::path& path, const std::string& text) {
  std::ofstream file(path, std::ios::binary | std::ios::trunc);
  file << text;
  file.close();
  return file ? absl::OkStatus() : CannotWrite(path, "is the disk full?");
}

// Draws one tensor chunk by chunk and appends its stored bytes to a file.
class TensorWriter {
 public:
  TensorWriter(WeightStyle style, const WriteOptions& options, uint64_t total_bytes)
      : style_(style), options_(options), total_bytes_(total_bytes), pool_(options.threads) {}

  void Append(const TensorSpec& spec, TensorType type, std::ofstream& file) {
    const Distribution distribution = DistributionOf(spec, style_);
    const uint64_t count = ElementCount(spec);
    for (uint64_t first = 0; first < count && file; first += kChunk) {
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
      file.write(buffer_.data(), static_cast<std::streamsize>(buffer_.size()));
      done_bytes_ += buffer_.size();
      if (options_.progress) options_.progress(done_bytes_, total_bytes_);
    }
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
  const uint64_t total_bytes_;
  uint64_t done_bytes_ = 0;
  base::ThreadPool pool_;
  std::vector<char> buffer_;
};

absl::Status WriteWeights(const Config& config, WeightStyle style, const WriteOptions& options,
                          const fs::path& directory) {
  const TensorType type = config.torch_dtype == "float32" ? TensorType::kF32 : TensorType::kBf16;
  const std::vector<TensorSpec> specs = TensorSpecs(config);
  const std::vector<FileLayout> files = PlanFiles(specs, type, options.shard_bytes);
  uint64_t total_bytes = 0;
  for (const FileLayout& file : files) total_bytes += file.data_bytes;
  std::error_code error;
  const fs::space_info space = fs::space(directory, error);
  if (!error && space.available < total_bytes) {
    return CannotWrite(
        directory, absl::StrCat("needs ", total_bytes, " bytes, the disk has ", space.available));
  }
  TensorWriter writer(style, options, total_bytes);
  for (const FileLayout& layout : files) {
    const fs::path path = directory / layout.name;
    std::ofstream file(path, std::ios::binary | std::ios::trunc);
    file << layout.header;
    for (const size_t i : layout.tensors) writer.Append(specs[i], StoredType(specs[i], type), file);
    file.close();
    if (!file) return CannotWrite(path, "is the disk full?");
  }
  if (options.shard_bytes == 0) return absl::OkStatus();
  return WriteText(directory / "model.safetensors.index.json", IndexJson(specs, files));
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
                      const fs::path& directory) {
  EM_RETURN_IF_ERROR(WriteText(directory / "config.json", ConfigJson(config)));
  EM_RETURN_IF_ERROR(WriteText(directory / "generation_config.json", GenerationConfigJson(config)));
  EM_RETURN_IF_ERROR(WritePresetTokenizer(directory.string(), config.vocab_size));
  return WriteWeights(config, style, options, directory);
}

}  // namespace

absl::Status WriteModel(const Config& config, WeightStyle style, const WriteOptions& options) {
  std::error_code error;
  fs::path target = fs::absolute(options.directory, error).lexically_normal();
  if (!target.has_filename()) target = target.parent_path();
  if (fs::exists(target, error) &&
      !(fs::is_directory(target, error) && fs::is_empty(target, error))) {
    return base::Error(
        base::Reason::kInvalidArgument,
        absl::StrCat(target.string(), " exists and is not an empty directory: choose another one"));
  }
  const fs::path aside = absl::StrCat(target.string(), ".partial-", getpid());
  fs::create_directories(aside, error);
  if (error) return CannotWrite(aside, error.message());
  absl::Status status = WriteAll(config, style, options, aside);
  if (status.ok()) {
    fs::rename(aside, target, error);  // replaces an empty directory
    if (error) status = CannotWrite(target, error.message());
  }
  std::error_code ignored;
  if (!status.ok()) fs::remove_all(aside, ignored);
  return status;
}

}  // namespace expertmesh::model

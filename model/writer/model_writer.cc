#include "model/writer/model_writer.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <cstring>
#include <string_view>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "model/checkpoint.h"
#include "model/checkpoint_files.h"
#include "model/formats/encode.h"
#include "model/kernels/bf16.h"
#include "model/tokenizer/preset_writer.h"
#include "model/writer/aside_directory.h"
#include "model/writer/engram_tables.h"
#include "model/writer/random_weights.h"
#include "model/writer/weight_files.h"
#include "services/base/status.h"
#include "services/base/thread_pool.h"

namespace expertmesh::model {
namespace {

constexpr MatrixFormat kTableFormat = {ValueFormat::kE4m3, ScaleFormat::kE8m0, 1, kTableBlock};
constexpr std::string_view kWeightEnding = "weight";
constexpr size_t kBlock = 4096;             // elements drawn at once by one thread
constexpr size_t kChunk = size_t{1} << 22;  // elements in memory at once; a multiple of kBlock

// Draws one tensor chunk by chunk and appends its stored bytes to a file.
class TensorWriter {
 public:
  TensorWriter(WeightStyle style, const WriteOptions& options, WeightFiles& files)
      : style_(style), options_(options), files_(files), pool_(options.threads) {}

  absl::Status Append(const TensorSpec& spec, size_t tensor, TensorType type) {
    const bool is_table = type == TensorType::kF8E4m3;
    if (is_table && kBlock % spec.shape[1] != 0) {
      return base::Error(base::Reason::kInvalidArgument,
                         absl::StrCat(spec.name, ": rows of ", spec.shape[1],
                                      " elements; fp8 tables take powers of two"));
    }
    if (is_table) scales_.resize(spec.shape[0] * kTableFormat.ScaleRowBytes(spec.shape[1]));
    std::atomic<bool> bad = false;
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
          if (!is_table) {
            Store(part, type, at);
          } else if (!StoreTable(part, spec.shape[1], at, first)) {
            bad = true;
          }
        }
      });
      if (bad) return base::Error(base::Reason::kInternal, spec.name + ": a row has no fp8 form");
      EM_RETURN_IF_ERROR(files_.Append(tensor, std::as_bytes(std::span(buffer_))));
      done_bytes_ += buffer_.size();
      if (options_.progress) options_.progress(done_bytes_, files_.total_bytes());
    }
    return absl::OkStatus();
  }

  // The scales of the table that was appended last.
  absl::Status AppendScales(size_t tensor) { return AppendBytes(tensor, scales_); }

  template <class T>
  absl::Status AppendIntegers(size_t tensor, const std::vector<T>& values) {
    return AppendBytes(tensor, std::as_bytes(std::span(values)));
  }

 private:
  absl::Status AppendBytes(size_t tensor, std::span<const std::byte> bytes) {
    EM_RETURN_IF_ERROR(files_.Append(tensor, bytes));
    done_bytes_ += bytes.size();
    if (options_.progress) options_.progress(done_bytes_, files_.total_bytes());
    return absl::OkStatus();
  }

  // Whole rows: a block holds a multiple of any power of two up to its size.
  bool StoreTable(std::span<const float> values, uint64_t columns, size_t at, uint64_t first) {
    const uint64_t row = (first + at) / columns;
    std::byte* scales = scales_.data() + row * kTableFormat.ScaleRowBytes(columns);
    return EncodeRows(kTableFormat, values.data(), values.size() / columns, columns,
                      reinterpret_cast<std::byte*>(buffer_.data()) + at, scales)
        .ok();
  }

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
  std::vector<std::byte> scales_;
};

// The integers that the memory's rows are found with, in the order of EngramHashSpecs.
absl::Status AppendHash(const Config& config, size_t tensor, TensorWriter& writer) {
  if (!config.engram) return absl::OkStatus();
  const EngramConfig& engram = *config.engram;
  EM_RETURN_IF_ERROR(
      writer.AppendIntegers(tensor++, EvenTokenClasses(config.vocab_size, engram.num_classes)));
  const std::vector<std::vector<uint64_t>> primes = EngramPrimes(engram);
  for (size_t i = 0; i < engram.layer_ids.size(); ++i) {
    EM_RETURN_IF_ERROR(writer.AppendIntegers(tensor++, primes[i]));
    EM_RETURN_IF_ERROR(
        writer.AppendIntegers(tensor++, EngramMultipliers(engram, engram.layer_ids[i])));
  }
  return absl::OkStatus();
}

absl::Status WriteWeights(const Preset& preset, const WriteOptions& options,
                          const std::string& directory) {
  const Config& config = preset.config;
  const TensorType type = config.torch_dtype == "float32" ? TensorType::kF32 : TensorType::kBf16;
  const std::vector<TensorSpec> specs = TensorSpecs(config);
  std::vector<StoredTensor> tensors;
  for (const TensorSpec& spec : specs) {
    if (preset.fp8_tables && spec.part == "engram_tables") {
      tensors.push_back({spec.name, TensorType::kF8E4m3, spec.shape});
      const std::string stem = spec.name.substr(0, spec.name.size() - kWeightEnding.size());
      tensors.push_back({stem + "scale",
                         TensorType::kF8E8m0,
                         {spec.shape[0], kTableFormat.ScaleColumns(spec.shape[1])}});
      continue;
    }
    tensors.push_back({spec.name, spec.always_f32 ? TensorType::kF32 : type, spec.shape});
  }
  const size_t first_hash = tensors.size();
  for (const HashTensorSpec& spec : EngramHashSpecs(config)) {
    tensors.push_back({spec.name, spec.type, {spec.size}});
  }
  EM_ASSIGN_OR_RETURN(WeightFiles files,
                      WeightFiles::Create(directory, tensors, options.shard_bytes));
  TensorWriter writer(preset.style, options, files);
  size_t tensor = 0;
  for (const TensorSpec& spec : specs) {
    const TensorType stored = tensors[tensor].type;
    EM_RETURN_IF_ERROR(writer.Append(spec, tensor++, stored));
    if (stored == TensorType::kF8E4m3) EM_RETURN_IF_ERROR(writer.AppendScales(tensor++));
  }
  EM_RETURN_IF_ERROR(AppendHash(config, first_hash, writer));
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

absl::Status WriteAll(const Preset& preset, const WriteOptions& options,
                      const std::string& directory) {
  const Config& config = preset.config;
  EM_RETURN_IF_ERROR(WriteTextFile(JoinPath(directory, "config.json"), ConfigJson(config)));
  EM_RETURN_IF_ERROR(
      WriteTextFile(JoinPath(directory, "generation_config.json"), GenerationConfigJson(config)));
  EM_RETURN_IF_ERROR(WritePresetTokenizer(directory, config.vocab_size));
  return WriteWeights(preset, options, directory);
}

}  // namespace

absl::Status WriteModel(const Preset& preset, const WriteOptions& options) {
  if (preset.on_paper) {
    return base::Error(base::Reason::kInvalidArgument,
                       "this preset is for counting and planning, nobody writes it; see "
                       "expertmesh model show --preset");
  }
  EM_ASSIGN_OR_RETURN(AsideDirectory aside, AsideDirectory::Create(options.directory));
  EM_RETURN_IF_ERROR(WriteAll(preset, options, aside.path()));
  return aside.Commit();
}

}  // namespace expertmesh::model

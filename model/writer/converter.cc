#include "model/writer/converter.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <filesystem>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "model/checkpoint.h"
#include "model/checkpoint_files.h"
#include "model/checkpoint_revision.h"
#include "model/config.h"
#include "model/formats/encode.h"
#include "model/writer/aside_directory.h"
#include "model/writer/converter_plan.h"
#include "model/writer/weight_files.h"
#include "services/base/status.h"
#include "services/base/thread_pool.h"

namespace expertmesh::model {
namespace {

namespace fs = std::filesystem;

constexpr std::array<std::string_view, 7> kTargetNames = {"f32", "bf16", "fp8-128", "fp8-32",
                                                          "fp4", "int8", "int4"};
constexpr uint64_t kBandRows = 128;  // rows that one thread encodes: whole blocks of every form
constexpr uint64_t kChunkElements = uint64_t{1} << 22;  // encoded between two writes, about
constexpr uint64_t kCopyBytes = uint64_t{8} << 20;
constexpr size_t kConfigBytesMax = 1 << 20;

// Buffers of one thread.
struct Band {
  std::vector<float> before;
  std::vector<float> after;
  ConversionError error;
  absl::Status status;
};

void Measure(const std::vector<float>& before, const std::vector<float>& after,
             ConversionError& error) {
  for (size_t i = 0; i < before.size(); ++i) {
    const double value = before[i];
    const double difference = double{after[i]} - value;
    error.max_abs = std::max(error.max_abs, std::fabs(difference));
    error.squared_error += difference * difference;
    error.squared_value += value * value;
  }
  error.elements += before.size();
}

void Add(const ConversionError& part, ConversionError& sum) {
  sum.elements += part.elements;
  sum.max_abs = std::max(sum.max_abs, part.max_abs);
  sum.squared_error += part.squared_error;
  sum.squared_value += part.squared_value;
}

class Converter {
 public:
  Converter(const ConvertOptions& options, const Checkpoint& checkpoint, const ConvertPlan& plan,
            WeightFiles& files)
      : options_(options),
        checkpoint_(checkpoint),
        plan_(plan),
        files_(files),
        pool_(options.threads),
        bands_(static_cast<size_t>(options.threads)) {}

  absl::Status Run() {
    for (const ConvertItem& item : plan_.items) {
      EM_RETURN_IF_ERROR(item.source ? Encode(item) : Copy(item));
    }
    return absl::OkStatus();
  }
  std::vector<ConversionError> TakeErrors() { return std::move(errors_); }

 private:
  absl::Status Copy(const ConvertItem& item);
  absl::Status Encode(const ConvertItem& item);
  absl::Status EncodeChunk(const ConvertItem& item, uint64_t row_begin, uint64_t row_end);
  absl::Status EncodeBand(const ConvertItem& item, uint64_t row_begin, uint64_t chunk_begin,
                          uint64_t row_end, Band& band);
  ConversionError& ErrorsOf(const ConvertItem& item);

  absl::Status Advance(uint64_t source_bytes) {
    done_bytes_ += source_bytes;
    if (options_.progress) options_.progress(done_bytes_, plan_.source_bytes);
    if (options_.cancelled && options_.cancelled()) {
      return base::Error(base::Reason::kCancelled, "stopped; nothing is left behind");
    }
    return absl::OkStatus();
  }

  const ConvertOptions& options_;
  const Checkpoint& checkpoint_;
  const ConvertPlan& plan_;
  WeightFiles& files_;
  base::ThreadPool pool_;
  std::vector<Band> bands_;
  std::vector<std::byte> values_;  // of the chunk
  std::vector<std::byte> scales_;  // of the matrix
  std::vector<ConversionError> errors_;
  uint64_t done_bytes_ = 0;
};

ConversionError& Converter::ErrorsOf(const ConvertItem& item) {
  const std::string format = FormatName(item.target);
  for (ConversionError& error : errors_) {
    if (error.part == item.part && error.format == format) return error;
  }
  errors_.push_back({item.part, format});
  return errors_.back();
}

absl::Status Converter::Copy(const ConvertItem& item) {
  for (uint64_t at = 0; at < item.bytes.size(); at += kCopyBytes) {
    const auto piece = item.bytes.subspan(at, std::min(kCopyBytes, item.bytes.size() - at));
    EM_RETURN_IF_ERROR(files_.Append(item.tensor, piece));
    checkpoint_.Release(piece);
    EM_RETURN_IF_ERROR(Advance(piece.size()));
  }
  return absl::OkStatus();
}

// Rows [row_begin, row_end), which lie in the chunk that begins at chunk_begin.
absl::Status Converter::EncodeBand(const ConvertItem& item, uint64_t row_begin,
                                   uint64_t chunk_begin, uint64_t row_end, Band& band) {
  const StoredMatrix& source = *item.source;
  const MatrixFormat& target = item.target;
  const uint64_t rows = row_end - row_begin;
  band.before.resize(rows * source.columns);
  band.after.resize(rows * source.columns);
  EM_RETURN_IF_ERROR(DecodeRows(source, row_begin, rows, band.before.data()));
  const uint64_t row_bytes = target.RowBytes(source.columns);
  std::byte* values = values_.data() + (row_begin - chunk_begin) * row_bytes;
  std::byte* scales =
      scales_.data() + row_begin / target.block_rows * target.ScaleRowBytes(source.columns);
  const absl::Status status =
      EncodeRows(target, band.before.data(), rows, source.columns, values, scales);
  if (!status.ok()) {
    return base::Annotate(status, absl::StrCat(source.file, ": tensor \"", source.name, "\": "));
  }
  const StoredMatrix stored{
      source.name,
      "",
      target,
      rows,
      source.columns,
      {values, rows * row_bytes},
      {scales, target.ScaleRows(rows) * target.ScaleRowBytes(source.columns)}};
  EM_RETURN_IF_ERROR(DecodeRows(stored, 0, rows, band.after.data()));
  Measure(band.before, band.after, band.error);
  return absl::OkStatus();
}

absl::Status Converter::EncodeChunk(const ConvertItem& item, uint64_t row_begin, uint64_t row_end) {
  const uint64_t rows = row_end - row_begin;
  values_.resize(rows * item.target.RowBytes(item.source->columns));
  pool_.ParallelFor((rows + kBandRows - 1) / kBandRows, 1, [&](size_t begin, size_t end, int t) {
    Band& band = bands_[static_cast<size_t>(t)];
    for (size_t b = begin; b < end && band.status.ok(); ++b) {
      const uint64_t first = row_begin + b * kBandRows;
      band.status = EncodeBand(item, first, row_begin, std::min(first + kBandRows, row_end), band);
    }
  });
  for (const Band& band : bands_) EM_RETURN_IF_ERROR(band.status);
  return files_.Append(item.tensor, values_);
}

absl::Status Converter::Encode(const ConvertItem& item) {
  const StoredMatrix& source = *item.source;
  scales_.resize(item.target.ScaleRows(source.rows) * item.target.ScaleRowBytes(source.columns));
  const uint64_t bands = std::max<uint64_t>(1, kChunkElements / (kBandRows * source.columns));
  const uint64_t source_row_bytes = source.format.RowBytes(source.columns);
  for (Band& band : bands_) band.error = {};
  for (uint64_t row = 0; row < source.rows; row += bands * kBandRows) {
    const uint64_t end = std::min(row + bands * kBandRows, source.rows);
    EM_RETURN_IF_ERROR(EncodeChunk(item, row, end));
    const auto used = source.values.subspan(row * source_row_bytes, (end - row) * source_row_bytes);
    checkpoint_.Release(used);
    EM_RETURN_IF_ERROR(Advance(used.size()));
  }
  checkpoint_.Release(source);
  if (item.target.is_quantised()) EM_RETURN_IF_ERROR(files_.Append(item.tensor + 1, scales_));
  ConversionError& sum = ErrorsOf(item);
  for (const Band& band : bands_) Add(band.error, sum);
  return absl::OkStatus();
}

// Whether a file beside the weights belongs to the new directory too.
bool IsCompanion(const fs::directory_entry& entry) {
  std::error_code error;
  const std::string name = entry.path().filename().string();
  if (!entry.is_regular_file(error) || name.starts_with(".")) return false;
  if (name == "config.json" || name == kRevisionFile) return false;
  constexpr std::string_view kWeights[] = {
      ".safetensors", ".safetensors.index.json", ".bin", ".bin.index.json", ".pt", ".pth", ".gguf"};
  return std::none_of(std::begin(kWeights), std::end(kWeights),
                      [&](std::string_view ending) { return name.ends_with(ending); });
}

absl::Status CopyCompanions(const std::string& from, const std::string& to) {
  std::error_code error;
  for (const fs::directory_entry& entry : fs::directory_iterator(from, error)) {
    if (!IsCompanion(entry)) continue;
    const std::string target = JoinPath(to, entry.path().filename().string());
    fs::copy_file(entry.path(), target, error);
    if (error) return CannotWrite(target, error.message());
  }
  return error ? CannotWrite(to, error.message()) : absl::OkStatus();
}

absl::Status WriteConfig(const ConvertOptions& options, const std::string& to) {
  const std::string path = JoinPath(options.from, "config.json");
  EM_ASSIGN_OR_RETURN(const std::string text,
                      ReadSmallFile(path, kConfigBytesMax, base::Reason::kBadConfig));
  EM_ASSIGN_OR_RETURN(const std::string converted,
                      ConvertedConfig(text, options.format, options.group_size));
  return WriteTextFile(JoinPath(to, "config.json"), converted);
}

}  // namespace

absl::StatusOr<TargetFormat> ParseTargetFormat(std::string_view name) {
  for (size_t i = 0; i < kTargetNames.size(); ++i) {
    if (kTargetNames[i] == name) return static_cast<TargetFormat>(i);
  }
  return base::Error(base::Reason::kInvalidArgument,
                     absl::StrCat("unknown format \"", std::string(name), "\", choose one of ",
                                  absl::StrJoin(TargetFormatNames(), ", ")));
}

std::vector<std::string> TargetFormatNames() { return {kTargetNames.begin(), kTargetNames.end()}; }

double ConversionError::RelativeRms() const {
  return squared_value == 0 ? 0.0 : std::sqrt(squared_error / squared_value);
}

absl::StatusOr<std::vector<ConversionError>> ConvertModel(const ConvertOptions& options) {
  std::error_code error;
  if (fs::exists(options.to, error)) {
    return base::Error(base::Reason::kInvalidArgument,
                       absl::StrCat(options.to, " exists: choose another directory"));
  }
  EM_ASSIGN_OR_RETURN(const Config config, LoadConfig(options.from));
  EM_ASSIGN_OR_RETURN(const auto checkpoint, Checkpoint::Open(options.from));
  EM_ASSIGN_OR_RETURN(const ConvertPlan plan,
                      PlanConversion(*checkpoint, config, options.format, options.group_size));
  EM_ASSIGN_OR_RETURN(AsideDirectory aside, AsideDirectory::Create(options.to));
  EM_RETURN_IF_ERROR(WriteConfig(options, aside.path()));
  EM_RETURN_IF_ERROR(CopyCompanions(options.from, aside.path()));
  EM_ASSIGN_OR_RETURN(WeightFiles files,
                      WeightFiles::Create(aside.path(), plan.tensors, options.shard_bytes));
  Converter converter(options, *checkpoint, plan, files);
  EM_RETURN_IF_ERROR(converter.Run());
  EM_RETURN_IF_ERROR(files.Finish());
  EM_RETURN_IF_ERROR(aside.Commit());
  return converter.TakeErrors();
}

}  // namespace expertmesh::model

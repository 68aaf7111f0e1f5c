#include "model/writer/gguf_export.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <filesystem>
#include <vector>

#include "absl/strings/str_cat.h"
#include "model/formats/encode.h"
#include "model/writer/aside_file.h"
#include "model/writer/gguf_tokenizer.h"
#include "services/base/status.h"
#include "services/base/thread_pool.h"

namespace expertmesh::model {
namespace {

constexpr float kLatentNormEps = 1e-6f;  // of q_a and kv_a in every family
constexpr MatrixFormat kInt8Groups{ValueFormat::kInt8, ScaleFormat::kF16, 1, kQ8Block};

// Buffers of one thread.
struct Worker {
  std::vector<float> rows;
  std::vector<float> transposed;
  std::vector<std::byte> values;
  std::vector<std::byte> scales;
};

// rows [row_count, columns] → [columns, row_count].
void Transpose(const std::vector<float>& rows, uint64_t row_count, uint64_t columns,
               std::vector<float>& out) {
  out.resize(rows.size());
  for (uint64_t r = 0; r < row_count; ++r) {
    for (uint64_t c = 0; c < columns; ++c) out[c * row_count + r] = rows[r * columns + c];
  }
}

// Each block: its scale, then its values.
void Interleave(const Worker& worker, uint64_t blocks, std::vector<std::byte>& out) {
  constexpr uint64_t kScaleBytes = kQ8BlockBytes - kQ8Block;
  out.resize(blocks * kQ8BlockBytes);
  for (uint64_t b = 0; b < blocks; ++b) {
    std::byte* block = out.data() + b * kQ8BlockBytes;
    std::memcpy(block, worker.scales.data() + b * kScaleBytes, kScaleBytes);
    std::memcpy(block + kScaleBytes, worker.values.data() + b * kQ8Block, kQ8Block);
  }
}

absl::Status EncodePiece(const GgufPiece& piece, GgmlType type, Worker& worker,
                         std::vector<std::byte>& out) {
  uint64_t rows = piece.row_count;
  uint64_t columns = piece.source.columns;
  worker.rows.resize(rows * columns);
  EM_RETURN_IF_ERROR(DecodeRows(piece.source, piece.row_begin, rows, worker.rows.data()));
  const float* values = worker.rows.data();
  if (piece.transposed) {
    Transpose(worker.rows, rows, columns, worker.transposed);
    values = worker.transposed.data();
    std::swap(rows, columns);
  }
  if (type != GgmlType::kQ8_0) {
    out.resize(rows * GgmlRowBytes(type, columns));
    const MatrixFormat& format = type == GgmlType::kF32 ? kPlainF32 : kPlainBf16;
    return EncodeRows(format, values, rows, columns, out.data(), nullptr);
  }
  worker.values.resize(rows * columns);
  worker.scales.resize(rows * kInt8Groups.ScaleRowBytes(columns));
  EM_RETURN_IF_ERROR(
      EncodeRows(kInt8Groups, values, rows, columns, worker.values.data(), worker.scales.data()));
  Interleave(worker, rows * columns / kQ8Block, out);
  return absl::OkStatus();
}

class Exporter {
 public:
  Exporter(const GgufOptions& options, const Checkpoint& checkpoint, const GgufPlan& plan,
           AsideFile& file)
      : options_(options),
        checkpoint_(checkpoint),
        plan_(plan),
        file_(file),
        pool_(options.threads),
        workers_(static_cast<size_t>(options.threads)) {}

  absl::Status Run(uint64_t total_bytes) {
    for (const GgufItem& item : plan_.items) {
      // As many pieces at a time as there are threads, written in their order.
      for (size_t at = 0; at < item.pieces.size(); at += workers_.size()) {
        const size_t count = std::min(workers_.size(), item.pieces.size() - at);
        EM_RETURN_IF_ERROR(Write({item.pieces.data() + at, count}, item.tensor.type));
        if (options_.progress) options_.progress(file_.size(), total_bytes);
        if (options_.cancelled && options_.cancelled()) {
          return base::Error(base::Reason::kCancelled, "stopped; nothing is left behind");
        }
      }
      EM_RETURN_IF_ERROR(Pad(item.tensor.bytes()));
      for (const GgufPiece& piece : item.pieces) checkpoint_.Release(piece.source);
    }
    return absl::OkStatus();
  }

 private:
  absl::Status Write(std::span<const GgufPiece> pieces, GgmlType type) {
    encoded_.resize(pieces.size());
    statuses_.assign(pieces.size(), absl::OkStatus());
    pool_.ParallelFor(pieces.size(), 1, [&](size_t begin, size_t end, int thread) {
      for (size_t i = begin; i < end; ++i) {
        statuses_[i] =
            EncodePiece(pieces[i], type, workers_[static_cast<size_t>(thread)], encoded_[i]);
      }
    });
    for (size_t i = 0; i < pieces.size(); ++i) {
      if (!statuses_[i].ok()) {
        const StoredMatrix& source = pieces[i].source;
        return base::Annotate(statuses_[i],
                              absl::StrCat(source.file, ": tensor \"", source.name, "\": "));
      }
      EM_RETURN_IF_ERROR(file_.Append(encoded_[i]));
    }
    return absl::OkStatus();
  }

  absl::Status Pad(uint64_t tensor_bytes) {
    constexpr std::array<std::byte, kGgufAlignment> kZeros{};
    return file_.Append({kZeros.data(), GgufPadding(tensor_bytes)});
  }

  const GgufOptions& options_;
  const Checkpoint& checkpoint_;
  const GgufPlan& plan_;
  AsideFile& file_;
  base::ThreadPool pool_;
  std::vector<Worker> workers_;
  std::vector<std::vector<std::byte>> encoded_;
  std::vector<absl::Status> statuses_;
};

std::string NameOf(const std::string& directory) {
  std::error_code error;
  std::filesystem::path path = std::filesystem::absolute(directory, error).lexically_normal();
  if (!path.has_filename()) path = path.parent_path();
  return path.filename().string();
}

}  // namespace

absl::StatusOr<GgmlType> ParseGgufType(std::string_view name) {
  if (name == "f32") return GgmlType::kF32;
  if (name == "bf16") return GgmlType::kBf16;
  if (name == "q8_0") return GgmlType::kQ8_0;
  return base::Error(
      base::Reason::kInvalidArgument,
      absl::StrCat("unknown type \"", std::string(name), "\", choose one of f32, bf16, q8_0"));
}

absl::StatusOr<KvbForm> ParseKvbForm(std::string_view name) {
  if (name == "split") return KvbForm::kSplit;
  if (name == "joined") return KvbForm::kJoined;
  return base::Error(
      base::Reason::kInvalidArgument,
      absl::StrCat("unknown form \"", std::string(name), "\" of kv_b, choose split or joined"));
}

absl::StatusOr<GgufSummary> ExportGguf(const GgufOptions& options) {
  EM_ASSIGN_OR_RETURN(const Config config, LoadConfig(options.directory));
  EM_RETURN_IF_ERROR(CheckGgufExport(config));
  EM_ASSIGN_OR_RETURN(const auto checkpoint, Checkpoint::Open(options.directory));
  EM_ASSIGN_OR_RETURN(GgufPlan plan, PlanGguf(*checkpoint, config, NameOf(options.directory),
                                              options.type, options.kv_b));
  EM_RETURN_IF_ERROR(AddGgufTokenizer(options.directory, config, plan.metadata));
  std::vector<GgufTensor> tensors;
  for (const GgufItem& item : plan.items) tensors.push_back(item.tensor);
  const std::string header = GgufHeader(plan.metadata, tensors);
  uint64_t total = header.size();
  for (const GgufTensor& tensor : tensors) total += tensor.bytes() + GgufPadding(tensor.bytes());
  EM_ASSIGN_OR_RETURN(AsideFile file, AsideFile::Create(options.file, total));
  EM_RETURN_IF_ERROR(file.Append(std::as_bytes(std::span(header))));
  EM_RETURN_IF_ERROR(Exporter(options, *checkpoint, plan, file).Run(total));
  EM_RETURN_IF_ERROR(file.Commit());
  return GgufSummary{tensors.size(), total, config.rms_norm_eps != kLatentNormEps};
}

}  // namespace expertmesh::model

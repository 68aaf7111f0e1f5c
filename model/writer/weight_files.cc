#include "model/writer/weight_files.h"

#include <filesystem>

#include "absl/strings/str_cat.h"
#include "model/checkpoint_files.h"
#include "model/writer/aside_directory.h"
#include "services/base/status.h"

namespace expertmesh::model {

WeightFiles::WeightFiles(std::string directory, const std::vector<StoredTensor>& tensors,
                         uint64_t shard_bytes)
    : directory_(std::move(directory)),
      tensors_(&tensors),
      layouts_(PlanFiles(tensors, shard_bytes)),
      is_sharded_(shard_bytes > 0 || layouts_.size() > 1) {
  for (const FileLayout& layout : layouts_) total_bytes_ += layout.data_bytes;
}

absl::StatusOr<WeightFiles> WeightFiles::Create(const std::string& directory,
                                                const std::vector<StoredTensor>& tensors,
                                                uint64_t shard_bytes) {
  WeightFiles files(directory, tensors, shard_bytes);
  std::error_code error;
  const std::filesystem::space_info space = std::filesystem::space(directory, error);
  if (!error && space.available < files.total_bytes_) {
    return CannotWrite(directory, absl::StrCat("needs ", files.total_bytes_,
                                               " bytes, the disk has ", space.available));
  }
  return files;
}

void WeightFiles::Open(size_t file) {
  stream_.open(JoinPath(directory_, layouts_[file].name), std::ios::binary | std::ios::trunc);
  stream_ << layouts_[file].header;
}

absl::Status WeightFiles::Close() {
  stream_.close();
  const std::string path = JoinPath(directory_, layouts_[next_file_ - 1].name);
  return stream_ ? absl::OkStatus() : CannotWrite(path, "is the disk full?");
}

absl::Status WeightFiles::Append(size_t tensor, std::span<const std::byte> bytes) {
  while (next_file_ == 0 || layouts_[next_file_ - 1].tensors.back() < tensor) {
    if (next_file_ > 0) EM_RETURN_IF_ERROR(Close());
    Open(next_file_++);
  }
  stream_.write(reinterpret_cast<const char*>(bytes.data()),
                static_cast<std::streamsize>(bytes.size()));
  if (stream_) return absl::OkStatus();
  return CannotWrite(JoinPath(directory_, layouts_[next_file_ - 1].name), "is the disk full?");
}

absl::Status WeightFiles::Finish() {
  EM_RETURN_IF_ERROR(Close());
  if (!is_sharded_) return absl::OkStatus();
  return WriteTextFile(JoinPath(directory_, "model.safetensors.index.json"),
                       IndexJson(*tensors_, layouts_));
}

}  // namespace expertmesh::model

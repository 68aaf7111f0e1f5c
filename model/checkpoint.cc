#include "model/checkpoint.h"

#include <algorithm>
#include <boost/json/object.hpp>
#include <cstring>
#include <filesystem>
#include <set>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "model/checkpoint_files.h"
#include "model/checkpoint_matrix.h"
#include "model/checkpoint_revision.h"
#include "model/config_json.h"
#include "model/config_quantization.h"
#include "services/base/status.h"

namespace expertmesh::model {
namespace {

namespace json = boost::json;

constexpr std::string_view kSingleFile = "model.safetensors";
constexpr std::string_view kIndexFile = "model.safetensors.index.json";
constexpr size_t kIndexBytesMax = size_t{128} << 20;
constexpr size_t kShardsMax = 4096;

absl::Status Bad(const std::string& text) {
  return base::Error(base::Reason::kBadCheckpoint, text);
}

std::string Escaped(std::string_view name) {
  return absl::Utf8SafeCEscape(absl::string_view(name.data(), name.size()));
}

std::string ShapeText(const std::vector<uint64_t>& shape) {
  return absl::StrCat("[", absl::StrJoin(shape, ", "), "]");
}

// Tensor name → shard file name, as the index tells it.
using WeightMap = std::map<std::string, std::string, std::less<>>;

// A shard stands beside its index: a plain name, never a path.
bool IsPlainFileName(std::string_view name) {
  return !name.empty() && name.size() <= 255 && name != "." && name != ".." &&
         name.find('/') == name.npos && name.find('\0') == name.npos;
}

absl::StatusOr<WeightMap> ReadIndex(const std::string& path) {
  constexpr auto kReason = base::Reason::kBadCheckpoint;
  EM_ASSIGN_OR_RETURN(const std::string text, ReadSmallFile(path, kIndexBytesMax, kReason));
  absl::StatusOr<json::value> root = ParseJson(text, kReason);
  if (!root.ok()) return base::Annotate(root.status(), path + ": ");
  const json::object* object = root->if_object();
  const json::value* map = object ? object->if_contains("weight_map") : nullptr;
  if (!map || !map->is_object()) return Bad(path + ": weight_map is missing or not an object");
  WeightMap files;
  for (const auto& [key, value] : map->get_object()) {
    const std::string name(key.data(), key.size());
    if (!value.is_string() ||
        !IsPlainFileName({value.get_string().data(), value.get_string().size()})) {
      return Bad(absl::StrCat(path, ": tensor \"", Escaped(name), "\": not the name of a file"));
    }
    files[name] = std::string(value.get_string().data(), value.get_string().size());
  }
  if (files.empty()) return Bad(path + ": weight_map is empty");
  return files;
}

// Files that hold tables of the memory and nothing else: those may be missing.
std::set<std::string> TableFiles(const WeightMap& files) {
  std::set<std::string> only_tables;
  for (const auto& [tensor, file] : files) {
    if (IsMemoryTable(tensor)) only_tables.insert(file);
  }
  for (const auto& [tensor, file] : files) {
    if (!IsMemoryTable(tensor)) only_tables.erase(file);
  }
  return only_tables;
}

}  // namespace

bool IsMemoryTable(std::string_view tensor) {
  return tensor.ends_with(".engram.embed.weight") || tensor.ends_with(".engram.embed.scale");
}

struct Checkpoint::Impl {
  std::string directory;
  std::vector<ShardFile> shards;
  std::map<std::string, TensorView, std::less<>> tensors;
  Quantization quantization;

  absl::Status AddShard(const std::string& file);
  absl::Status OpenIndexed(const std::string& index_path);
  std::string Path(std::string_view file) const { return JoinPath(directory, file); }
};

absl::Status Checkpoint::Impl::AddShard(const std::string& file) {
  const std::string path = Path(file);
  EM_ASSIGN_OR_RETURN(std::unique_ptr<MappedFile> mapped, MappedFile::Open(path));
  const std::span<const std::byte> bytes = mapped->bytes();
  absl::StatusOr<SafetensorsHeader> header = ParseSafetensorsHeader(bytes, bytes.size());
  if (!header.ok()) return base::Annotate(header.status(), path + ": ");
  mapped->Release(bytes.first(header->data_begin));
  const auto data = bytes.subspan(header->data_begin);
  for (TensorEntry& entry : header->tensors) {
    const auto found = tensors.find(entry.name);
    if (found != tensors.end()) {
      return Bad(absl::StrCat(path, ": tensor \"", Escaped(entry.name), "\" is also in ",
                              found->second.file));
    }
    TensorView view{entry.name, entry.type, std::move(entry.shape),
                    data.subspan(entry.begin, entry.end - entry.begin), path};
    tensors.emplace(std::move(entry.name), std::move(view));
  }
  shards.push_back({file, std::move(mapped)});
  return absl::OkStatus();
}

absl::Status Checkpoint::Impl::OpenIndexed(const std::string& index_path) {
  EM_ASSIGN_OR_RETURN(const WeightMap files, ReadIndex(index_path));
  std::vector<std::string> names;
  for (const auto& [tensor, file] : files) names.push_back(file);
  std::sort(names.begin(), names.end());
  names.erase(std::unique(names.begin(), names.end()), names.end());
  if (names.size() > kShardsMax) {
    return Bad(absl::StrCat(index_path, ": ", names.size(), " shards, at most ", kShardsMax));
  }
  std::set<std::string> deleted = TableFiles(files);
  for (const std::string& name : names) {
    std::error_code error;
    if (deleted.contains(name) && !std::filesystem::exists(Path(name), error)) continue;
    deleted.erase(name);
    EM_RETURN_IF_ERROR(AddShard(name));
  }
  for (const auto& [tensor, file] : files) {
    if (deleted.contains(file)) continue;
    const auto found = tensors.find(tensor);
    if (found == tensors.end() || found->second.file != Path(file)) {
      return Bad(absl::StrCat(index_path, ": tensor \"", Escaped(tensor), "\" is not in ", file));
    }
  }
  for (const auto& [tensor, view] : tensors) {
    if (!files.contains(tensor)) {
      return Bad(absl::StrCat(view.file, ": tensor \"", Escaped(tensor), "\" is not in ",
                              std::string(kIndexFile)));
    }
  }
  return absl::OkStatus();
}

Checkpoint::Checkpoint(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Checkpoint::~Checkpoint() = default;

absl::StatusOr<std::unique_ptr<Checkpoint>> Checkpoint::Open(const std::string& directory) {
  auto impl = std::make_unique<Impl>();
  impl->directory = directory;
  EM_ASSIGN_OR_RETURN(impl->quantization, LoadQuantization(directory));
  std::error_code error;
  const std::string index_path = impl->Path(kIndexFile);
  if (std::filesystem::exists(impl->Path(kSingleFile), error)) {
    EM_RETURN_IF_ERROR(impl->AddShard(std::string(kSingleFile)));
  } else if (std::filesystem::exists(index_path, error)) {
    EM_RETURN_IF_ERROR(impl->OpenIndexed(index_path));
  } else {
    return Bad(absl::StrCat(directory, ": holds neither ", std::string(kSingleFile), " nor ",
                            std::string(kIndexFile)));
  }
  return std::unique_ptr<Checkpoint>(new Checkpoint(std::move(impl)));
}

const TensorView* Checkpoint::Find(std::string_view name) const {
  const auto found = impl_->tensors.find(name);
  return found == impl_->tensors.end() ? nullptr : &found->second;
}

absl::StatusOr<TensorView> Checkpoint::Float(std::string_view name,
                                             std::vector<uint64_t> shape) const {
  const std::string expected = absl::StrCat("expected F32, BF16 or F16 ", ShapeText(shape));
  const TensorView* view = Find(name);
  if (!view) {
    const std::string& where =
        impl_->shards.size() == 1 ? impl_->Path(impl_->shards[0].name) : impl_->directory;
    return Bad(absl::StrCat(where, ": tensor \"", Escaped(name), "\" is missing, ", expected));
  }
  const bool is_float = view->type == TensorType::kF32 || view->type == TensorType::kBf16 ||
                        view->type == TensorType::kF16;
  if (!is_float || view->shape != shape) {
    return Bad(absl::StrCat(view->file, ": tensor \"", Escaped(name), "\": ", expected, ", found ",
                            std::string(TensorTypeName(view->type)), " ", ShapeText(view->shape)));
  }
  return *view;
}

const std::map<std::string, TensorView, std::less<>>& Checkpoint::tensors() const {
  return impl_->tensors;
}

const std::string& Checkpoint::directory() const { return impl_->directory; }

absl::StatusOr<std::string> Checkpoint::Revision(std::string_view options) const {
  return ComputeRevision(*this, impl_->shards, options);
}

absl::StatusOr<StoredMatrix> Checkpoint::Matrix(std::string_view name, uint64_t rows,
                                                uint64_t columns) const {
  const TensorView* values = Find(name);
  const std::vector<std::string> names = ScalesOf(name);
  if (!values) return Float(name, {rows, columns}).status();
  if (names.size() > 1) {
    return Bad(absl::StrCat(values->file, ": tensor \"", Escaped(name), "\" has two scales: \"",
                            absl::StrJoin(names, "\" and \""), "\""));
  }
  const TensorView* scales = names.empty() ? nullptr : Find(names[0]);
  return JoinMatrix(*values, scales, rows, columns, impl_->quantization);
}

absl::StatusOr<StoredMatrix> Checkpoint::Weight(const TensorSpec& spec) const {
  if (MayBeQuantised(spec) || spec.part == "head" || spec.part == "engram_tables") {
    return Matrix(spec.name, spec.shape[0], spec.shape[1]);
  }
  EM_ASSIGN_OR_RETURN(const TensorView view, Float(spec.name, spec.shape));
  if (spec.part == "mhc" && view.type != TensorType::kF32) {
    return Bad(absl::StrCat(view.file, ": tensor \"", Escaped(spec.name),
                            "\": expected F32, found ", std::string(TensorTypeName(view.type))));
  }
  return PlainMatrix(view);
}

absl::StatusOr<std::vector<int64_t>> Checkpoint::Integers(const HashTensorSpec& spec) const {
  const std::string expected =
      absl::StrCat("expected ", std::string(TensorTypeName(spec.type)), " [", spec.size, "]");
  const TensorView* view = Find(spec.name);
  if (!view) {
    return Bad(absl::StrCat(directory(), ": tensor \"", spec.name, "\" is missing, ", expected));
  }
  if (view->type != spec.type || view->shape != std::vector<uint64_t>{spec.size}) {
    return Bad(absl::StrCat(view->file, ": tensor \"", spec.name, "\": ", expected, ", found ",
                            std::string(TensorTypeName(view->type)), " ", ShapeText(view->shape)));
  }
  std::vector<int64_t> values(spec.size);
  const size_t width = TensorTypeBytes(spec.type);
  for (size_t i = 0; i < values.size(); ++i) {
    int32_t narrow = 0;
    if (width == sizeof(narrow)) {
      std::memcpy(&narrow, view->bytes.data() + i * width, width);
      values[i] = narrow;
    } else {
      std::memcpy(&values[i], view->bytes.data() + i * width, width);
    }
  }
  return values;
}

std::vector<std::string> Checkpoint::ScalesOf(std::string_view name) const {
  std::vector<std::string> found;
  for (std::string& scales : ScaleNames(name)) {
    if (Find(scales)) found.push_back(std::move(scales));
  }
  return found;
}

void Checkpoint::Release(std::span<const std::byte> bytes) const {
  for (const ShardFile& shard : impl_->shards) {
    const std::span<const std::byte> all = shard.mapped->bytes();
    if (bytes.data() >= all.data() && bytes.data() < all.data() + all.size()) {
      shard.mapped->Release(bytes);
    }
  }
}

}  // namespace expertmesh::model

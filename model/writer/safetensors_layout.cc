#include "model/writer/safetensors_layout.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"

namespace expertmesh::model {
namespace {

constexpr size_t kAlignment = 64;  // of the first tensor byte: the header is padded with spaces

uint64_t StoredBytes(const TensorSpec& spec, TensorType type) {
  return ElementCount(spec) * TensorTypeBytes(StoredType(spec, type));
}

std::string HeaderOf(const std::vector<TensorSpec>& specs, const std::vector<size_t>& tensors,
                     TensorType type) {
  std::string json = R"({"__metadata__":{"format":"pt"})";
  uint64_t begin = 0;
  for (const size_t i : tensors) {
    const uint64_t end = begin + StoredBytes(specs[i], type);
    absl::StrAppend(&json, ",\"", specs[i].name, "\":{\"dtype\":\"",
                    std::string(TensorTypeName(StoredType(specs[i], type))), "\",\"shape\":[",
                    absl::StrJoin(specs[i].shape, ","), "],\"data_offsets\":[", begin, ",", end,
                    "]}");
    begin = end;
  }
  json += '}';
  while ((8 + json.size()) % kAlignment != 0) json += ' ';
  std::string header;
  for (int i = 0; i < 8; ++i) header += static_cast<char>(uint64_t{json.size()} >> (8 * i));
  return header + json;
}

}  // namespace

TensorType StoredType(const TensorSpec& spec, TensorType type) {
  return spec.always_f32 ? TensorType::kF32 : type;
}

uint64_t ElementCount(const TensorSpec& spec) {
  uint64_t count = 1;
  for (const uint64_t extent : spec.shape) count *= extent;
  return count;
}

std::vector<FileLayout> PlanFiles(const std::vector<TensorSpec>& specs, TensorType type,
                                  uint64_t shard_bytes) {
  std::vector<FileLayout> files(1);
  for (size_t i = 0; i < specs.size(); ++i) {
    const uint64_t bytes = StoredBytes(specs[i], type);
    const bool is_full = files.back().data_bytes + bytes > shard_bytes;
    if (shard_bytes > 0 && is_full && !files.back().tensors.empty()) files.emplace_back();
    files.back().tensors.push_back(i);
    files.back().data_bytes += bytes;
  }
  for (size_t i = 0; i < files.size(); ++i) {
    files[i].name = shard_bytes == 0
                        ? std::string("model.safetensors")
                        : absl::StrFormat("model-%05d-of-%05d.safetensors", i + 1, files.size());
    files[i].header = HeaderOf(specs, files[i].tensors, type);
  }
  return files;
}

std::string IndexJson(const std::vector<TensorSpec>& specs, const std::vector<FileLayout>& files) {
  std::vector<std::string> lines;
  uint64_t total = 0;
  for (const FileLayout& file : files) {
    total += file.data_bytes;
    for (const size_t i : file.tensors) {
      lines.push_back(absl::StrCat("    \"", specs[i].name, "\": \"", file.name, "\""));
    }
  }
  return absl::StrCat("{\n  \"metadata\": {\"total_size\": ", total, "},\n  \"weight_map\": {\n",
                      absl::StrJoin(lines, ",\n"), "\n  }\n}\n");
}

}  // namespace expertmesh::model

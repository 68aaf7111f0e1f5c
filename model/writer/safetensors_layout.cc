#include "model/writer/safetensors_layout.h"

#include <boost/json/serialize.hpp>
#include <boost/json/string.hpp>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"

namespace expertmesh::model {
namespace {

constexpr size_t kAlignment = 64;  // of the first tensor byte: the header is padded with spaces

// A name as it stands between quotes in JSON: those of foreign files may hold anything.
std::string JsonName(const std::string& name) {
  return boost::json::serialize(boost::json::string(name));
}

std::string HeaderOf(const std::vector<StoredTensor>& all, const std::vector<size_t>& tensors) {
  std::string json = R"({"__metadata__":{"format":"pt"})";
  uint64_t begin = 0;
  for (const size_t i : tensors) {
    const uint64_t end = begin + all[i].bytes();
    absl::StrAppend(&json, ",", JsonName(all[i].name), ":{\"dtype\":\"",
                    std::string(TensorTypeName(all[i].type)), "\",\"shape\":[",
                    absl::StrJoin(all[i].shape, ","), "],\"data_offsets\":[", begin, ",", end,
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

uint64_t ElementCount(const std::vector<uint64_t>& shape) {
  uint64_t count = 1;
  for (const uint64_t extent : shape) count *= extent;
  return count;
}

uint64_t StoredTensor::bytes() const { return ElementCount(shape) * TensorTypeBytes(type); }

std::vector<FileLayout> PlanFiles(const std::vector<StoredTensor>& tensors, uint64_t shard_bytes) {
  std::vector<FileLayout> files(1);
  for (size_t i = 0; i < tensors.size(); ++i) {
    const uint64_t bytes = tensors[i].bytes();
    const bool is_full = shard_bytes > 0 && files.back().data_bytes + bytes > shard_bytes;
    const bool is_apart =
        i > 0 && IsMemoryTable(tensors[i].name) != IsMemoryTable(tensors[i - 1].name);
    if ((is_full || is_apart) && !files.back().tensors.empty()) files.emplace_back();
    files.back().tensors.push_back(i);
    files.back().data_bytes += bytes;
  }
  for (size_t i = 0; i < files.size(); ++i) {
    files[i].name = shard_bytes == 0 && files.size() == 1
                        ? std::string("model.safetensors")
                        : absl::StrFormat("model-%05d-of-%05d.safetensors", i + 1, files.size());
    files[i].header = HeaderOf(tensors, files[i].tensors);
  }
  return files;
}

std::string IndexJson(const std::vector<StoredTensor>& tensors,
                      const std::vector<FileLayout>& files) {
  std::vector<std::string> lines;
  uint64_t total = 0;
  for (const FileLayout& file : files) {
    total += file.data_bytes;
    for (const size_t i : file.tensors) {
      lines.push_back(absl::StrCat("    ", JsonName(tensors[i].name), ": \"", file.name, "\""));
    }
  }
  return absl::StrCat("{\n  \"metadata\": {\"total_size\": ", total, "},\n  \"weight_map\": {\n",
                      absl::StrJoin(lines, ",\n"), "\n  }\n}\n");
}

}  // namespace expertmesh::model

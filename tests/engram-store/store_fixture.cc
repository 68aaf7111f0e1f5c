#include "tests/engram-store/store_fixture.h"

#include <gtest/gtest.h>

#include <filesystem>

#include "absl/strings/str_cat.h"
#include "model/checkpoint.h"
#include "model/writer/engram_tables.h"
#include "model/writer/model_writer.h"
#include "model/writer/presets.h"

namespace expertmesh::engram_store {

void WriteMemoryModel(const std::string& directory, uint64_t seed, bool fp8, uint64_t rows) {
  model::Preset preset = *model::FindPreset("tiny");
  preset.fp8_tables = fp8;
  preset.config.engram->vocab_size = rows;
  preset.config.engram->num_embeddings = model::EngramRowCounts(*preset.config.engram);
  model::WriteOptions options;
  options.directory = directory;
  options.seed = seed;
  const absl::Status written = model::WriteModel(preset, options);
  ASSERT_TRUE(written.ok()) << written;
}

std::string CheckpointRows(const std::string& directory, uint32_t layer,
                           const std::vector<uint64_t>& ids) {
  const auto checkpoint = *model::Checkpoint::Open(directory);
  const std::string name = absl::StrCat("model.layers.", layer, ".engram.embed.");
  const auto append = [&](const model::TensorView* tensor, uint64_t id, std::string& out) {
    if (tensor == nullptr) return;
    const size_t bytes = tensor->bytes.size() / tensor->shape[0];
    out.append(reinterpret_cast<const char*>(tensor->bytes.data()) + id * bytes, bytes);
  };
  std::string rows;
  for (const uint64_t id : ids) {
    append(checkpoint->Find(name + "weight"), id, rows);
    append(checkpoint->Find(name + "scale"), id, rows);
  }
  return rows;
}

std::string RevisionOf(const std::string& directory) {
  return *(*model::Checkpoint::Open(directory))->Revision();
}

size_t DeleteTableFiles(const std::string& directory) {
  std::map<std::string, bool> only_tables;
  {
    const auto checkpoint = *model::Checkpoint::Open(directory);
    for (const auto& [name, tensor] : checkpoint->tensors()) {
      const auto [it, first] = only_tables.emplace(tensor.file, true);
      it->second = it->second && model::IsMemoryTable(name);
    }
  }
  size_t deleted = 0;
  for (const auto& [file, gone] : only_tables) {
    if (gone) deleted += std::filesystem::remove(file) ? 1 : 0;
  }
  return deleted;
}

absl::StatusOr<std::string> Rows(const EngramTables& tables, const VersionQuery& query,
                                 uint32_t layer, const std::vector<uint64_t>& ids) {
  const auto served = tables.Find(query);
  if (!served.ok()) return served.status();
  std::string rows(ids.size() * (*served)->record.shape.row_bytes(), '\0');
  const absl::Status read =
      (*served)->tables.at(layer)->Read(ids, reinterpret_cast<std::byte*>(rows.data()));
  if (!read.ok()) return read;
  return rows;
}

std::vector<uint64_t> SomeIds(uint64_t rows) {
  std::vector<uint64_t> ids = {rows - 1, 0, 1, 0};
  for (uint64_t i = 0; i < 200; ++i) ids.push_back(i * 7919 % rows);
  return ids;
}

}  // namespace expertmesh::engram_store

#include "model/local_memory.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "model/formats/table_row.h"
#include "services/base/status.h"

namespace expertmesh::model {
absl::StatusOr<std::unique_ptr<LocalMemory>> LocalMemory::Load(const std::string& directory,
                                                               const Config& config) {
  auto memory = std::make_unique<LocalMemory>();
  if (!config.engram) return memory;
  EM_ASSIGN_OR_RETURN(memory->checkpoint_, Checkpoint::Open(directory));
  for (size_t place = 0; place < config.engram->layer_ids.size(); ++place) {
    const uint32_t layer = config.engram->layer_ids[place];
    const std::string name = absl::StrCat("model.layers.", layer, ".engram.embed.weight");
    EM_ASSIGN_OR_RETURN(const StoredMatrix table,
                        memory->checkpoint_->Matrix(name, config.engram->num_embeddings[place],
                                                    config.engram->head_dim));
    if (!IsTableFormat(table.format)) {
      return base::Error(
          base::Reason::kBadCheckpoint,
          absl::StrCat(table.file, ": tensor \"", name, "\": expected F32, BF16 or F8_E4M3 with a ",
                       "scale for 32 columns, found ", FormatName(table.format)));
    }
    memory->tables_.emplace(layer, table);
  }
  return memory;
}

void LocalMemory::Finish(uint32_t layer, std::span<float> out, std::span<uint8_t> alive) {
  const StoredMatrix& table = tables_.at(layer);
  const auto wanted = std::find_if(call_.layers.begin(), call_.layers.end(),
                                   [&](const MemoryCall::Layer& l) { return l.layer == layer; });
  for (size_t row = 0; row < call_.row_count; ++row) {
    for (size_t c = 0; c < call_.columns && alive[row] != 0; ++c) {
      const size_t at = row * call_.columns + c;
      if (!DecodeRows(table, wanted->row_ids[at], 1, out.data() + at * call_.width).ok()) {
        alive[row] = 0;
      }
    }
  }
}

}  // namespace expertmesh::model

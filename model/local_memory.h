// The tables of the memory in this process, mapped and read row by row: O(1) per row, nothing is
// loaded ahead.
#pragma once

#include <map>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "model/checkpoint.h"
#include "model/config.h"
#include "model/memory_backend.h"

namespace expertmesh::model {

/// Tables F32, BF16 or fp8 with a scale for 32 columns (docs/model-family.md §3). Used by one step
/// at a time.
class LocalMemory final : public MemoryBackend {
 public:
  /// `config` is that of the directory. kBadCheckpoint naming file and tensor. A config without a
  /// memory gives one without tables.
  static absl::StatusOr<std::unique_ptr<LocalMemory>> Load(const std::string& directory,
                                                           const Config& config);

  void Begin(const MemoryCall& call) override { call_ = call; }
  /// A row that does not decode (a NaN code) kills its token.
  void Finish(uint32_t layer, std::span<float> out, std::span<uint8_t> alive) override;

 private:
  std::unique_ptr<Checkpoint> checkpoint_;
  std::map<uint32_t, StoredMatrix> tables_;  // by layer; views into the checkpoint
  MemoryCall call_;
};

}  // namespace expertmesh::model

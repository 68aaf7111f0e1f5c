// What the tests of the store share: a small model with a memory, and its tables read by other
// means.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "engram-store/engram_tables.h"
#include "model/config.h"
#include "tests/support/temp_dir.h"

namespace expertmesh::engram_store {

inline constexpr char kModel[] = "tiny";

/// Writes a model directory with the memory of the preset `tiny`: layers 1 and 3, 32 columns; F32,
/// or fp8 with scales. `rows` is engram_vocab_size. The same seed gives the same bytes.
void WriteMemoryModel(const std::string& directory, uint64_t seed = 1, bool fp8 = false,
                      uint64_t rows = 400);
/// Rows as they stand in the checkpoint: values, then scales.
std::string CheckpointRows(const std::string& directory, uint32_t layer,
                           const std::vector<uint64_t>& ids);
std::string RevisionOf(const std::string& directory);
/// Removes the files that hold nothing but tables; returns how many there were.
size_t DeleteTableFiles(const std::string& directory);

/// Rows of a version as the store gives them; the status' text if it does not.
absl::StatusOr<std::string> Rows(const EngramTables& tables, const VersionQuery& query,
                                 uint32_t layer, const std::vector<uint64_t>& ids);

/// Ids of rows all over a table, the first and the last among them.
std::vector<uint64_t> SomeIds(uint64_t rows);

}  // namespace expertmesh::engram_store

// Goldens as tests/parity/README.md describes them.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace expertmesh::parity {

/// One sequence and what the oracle computed for it.
struct Sequence {
  std::string name;
  size_t prompt_length = 0;
  uint64_t start_position = 0;
  std::vector<uint32_t> tokens;                      // [T]
  std::vector<float> logits;                         // [T, V]
  std::map<uint32_t, std::vector<float>> hidden;     // layer → [T, width]
  std::map<uint32_t, std::vector<int32_t>> experts;  // MoE layer → [T, k], ascending
  std::map<uint32_t, std::vector<int32_t>> positions;  // indexer layer → [T, K], −1 behind the last
};

/// One checkpoint with its sequences.
struct Golden {
  std::string name;
  std::string model_type;
  std::string oracle;
  std::string checkpoint;               // directory
  bool masked_gate_group_zero = false;  // the oracle masks gate groups with 0.0
  std::vector<Sequence> sequences;
};

/// Directory of the goldens: EXPERTMESH_GOLDENS, or the committed ones.
std::string GoldensDirectory();

/// Names of index.json, sorted: the cases of families that this version runs. What is left out is
/// said on stderr.
absl::StatusOr<std::vector<std::string>> ListGoldens(const std::string& directory);
/// The same, without the cases whose oracle masks gate groups with 0.0: processes serve with −inf.
absl::StatusOr<std::vector<std::string>> ListServedGoldens(const std::string& directory);

absl::StatusOr<Golden> LoadGolden(const std::string& directory, const std::string& name);

}  // namespace expertmesh::parity

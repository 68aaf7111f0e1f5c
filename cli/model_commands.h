// `expertmesh model init|convert|export|show|slices`.
#pragma once

#include <cstdint>
#include <iosfwd>
#include <string>
#include <vector>

#include "absl/status/status.h"

namespace expertmesh::cli {

/// Where a command writes: results to out, progress to err.
struct Output {
  std::ostream& out;
  std::ostream& err;
};

inline constexpr unsigned kThreadsMax = 256;

struct InitOptions {
  std::string preset;
  std::string directory;
  uint64_t seed = 0;
  uint32_t shard_mb = 0;  // 0 = one file
  int threads = 1;
};
/// Writes the directory, reads it back, checks it and caches its revision.
absl::Status InitModel(const InitOptions& options, const Output& output);

struct ConvertOptions {
  std::string from;
  std::string to;
  std::string format;
  uint64_t group_size = 32;
  uint32_t shard_mb = 0;  // 0 = one file
  int threads = 1;
};
/// Writes the directory in another stored form, reads it back, caches its revision and prints what
/// the new form changed, by part.
absl::Status ConvertModel(const ConvertOptions& options, const Output& output);

struct ExportOptions {
  std::string directory;
  std::string file;
  bool gguf = false;  // the only form there is
  std::string type = "bf16";
  std::string kv_b = "split";
  int threads = 1;
};
/// Writes the directory as one GGUF file and says what other engines compute differently, if so.
absl::Status ExportModel(const ExportOptions& options, const Output& output);

struct ShowOptions {
  std::string directory;
  std::string preset;                  // instead of a directory
  std::vector<std::string> overrides;  // "key=value" of config.json, as a worker's
  bool json = false;
};
absl::Status ShowModel(const ShowOptions& options, const Output& output);

struct SlicesOptions {
  std::string directory;
  std::string preset;  // instead of a directory
  uint32_t pools = 1;
  bool json = false;
};
absl::Status PrintSlices(const SlicesOptions& options, const Output& output);

}  // namespace expertmesh::cli

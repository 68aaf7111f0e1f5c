// `quantization_config` of config.json: what it may say, and the block sizes it states
// (docs/formats.md §7.6). How a tensor is stored follows from its type; this only fixes its blocks.
#pragma once

#include <boost/json/value.hpp>
#include <cstdint>
#include <string>

#include "absl/status/statusor.h"

namespace expertmesh::model {

/// Zero where the file does not say: the block then follows from the shape of the scales.
struct Quantization {
  uint64_t block_rows = 0;  // of fp8: weight_block_size
  uint64_t block_columns = 0;
  uint64_t group_size = 0;  // of int8 and int4
};

/// Reads the value of the key. quant_method "fp8" (fmt "e4m3", weight_block_size [rows, columns])
/// and "expertmesh" (bits 8 or 4, group_size 32 or 128) are known; anything else is kBadConfig
/// saying in one line what is wrong and what is supported. Never aborts on any value.
absl::StatusOr<Quantization> ParseQuantization(const boost::json::value& value);

/// That of DIR/config.json; all zero if there is no such file or no such key.
absl::StatusOr<Quantization> LoadQuantization(const std::string& directory);

}  // namespace expertmesh::model

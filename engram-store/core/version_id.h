// The content address of a version (docs/engram-store.md §2). Pure.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "model/tables/segment_format.h"
#include "model/tables/table_shape.h"

namespace expertmesh::engram_store {

using model::RowFormat;
using model::TableShape;
using model::VersionBytes;

/// Sum modulo 2^256 of the hashes of all blocks: the order does not count, and a block can be taken
/// out again.
class ContentSum {
 public:
  using Bytes = std::array<uint8_t, 32>;  // little-endian

  ContentSum() = default;
  explicit ContentSum(const Bytes& bytes);
  void Add(uint32_t layer, uint64_t block, std::span<const std::byte> bytes);
  void Subtract(uint32_t layer, uint64_t block, std::span<const std::byte> bytes);
  Bytes bytes() const;

 private:
  std::array<uint64_t, 4> words_{};
};

/// 32 bytes; VersionName gives the hex that people see.
VersionBytes VersionOf(const TableShape& shape, const ContentSum& sum);
std::string VersionName(const VersionBytes& version);
/// The bytes of 64 hex digits; zeros for anything else.
VersionBytes VersionFromName(const std::string& name);

}  // namespace expertmesh::engram_store

// Keys of the record, and versions as its values (docs/engram-store.md §2).
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "engram-store/core/version_catalogue.h"
#include "expertmesh/engram/v1/engram.pb.h"

namespace expertmesh::engram_store {

/// Big-endian, so that keys sort as numbers.
void AppendKey32(uint32_t value, std::string& out);
void AppendKey64(uint64_t value, std::string& out);
uint64_t ReadKey64(std::string_view key, size_t at);

/// root, layer, block, ¬change: the newest change of a block stands first.
inline constexpr size_t kRowKeyBytes = 28;
inline constexpr size_t kBlockKeyBytes = 20;  // without the change
std::string BlockKey(uint64_t root, uint32_t layer, uint64_t block);
std::string RowKey(uint64_t root, uint32_t layer, uint64_t block, uint64_t change);

std::string NumberKey(uint64_t number);

engram::v1::TableShape ToProto(const TableShape& shape);
TableShape FromProto(const engram::v1::TableShape& shape);
engram::v1::EngramVersion ToProto(const VersionRecord& version);

/// The value of a version's entry, and back; false if it does not say what a version must.
std::string EntryOf(const VersionRecord& version);
bool ParseEntry(std::string_view key, std::string_view value, VersionRecord& version);

}  // namespace expertmesh::engram_store

#include "tests/engram-store/rocksdb/multi_get_table.h"

#include <rocksdb/cache.h>
#include <rocksdb/db.h>
#include <rocksdb/options.h>
#include <rocksdb/table.h>

#include <cstring>
#include <utility>
#include <vector>

#include "engram-store/rocksdb/db_keys.h"

namespace expertmesh::engram_store {

struct MultiGetTable::Impl {
  std::unique_ptr<rocksdb::DB> db;
  size_t row_bytes = 0;
};

namespace {

absl::Status StatusOf(const rocksdb::Status& status) {
  return status.ok() ? absl::OkStatus() : absl::InternalError(status.ToString());
}

}  // namespace

MultiGetTable::MultiGetTable(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
MultiGetTable::~MultiGetTable() = default;

absl::StatusOr<std::unique_ptr<MultiGetTable>> MultiGetTable::Make(const std::string& directory,
                                                                   std::span<const std::byte> rows,
                                                                   size_t row_bytes) {
  rocksdb::BlockBasedTableOptions table;
  table.block_cache = rocksdb::NewLRUCache(rows.size() * 2 + (64 << 20));
  rocksdb::Options options;
  options.create_if_missing = true;
  options.compression = rocksdb::kNoCompression;
  options.table_factory.reset(rocksdb::NewBlockBasedTableFactory(table));
  auto impl = std::make_unique<Impl>();
  impl->row_bytes = row_bytes;
  rocksdb::DB* db = nullptr;
  if (auto opened = StatusOf(rocksdb::DB::Open(options, directory, &db)); !opened.ok()) {
    return opened;
  }
  impl->db.reset(db);
  rocksdb::WriteOptions write;
  write.disableWAL = true;
  const size_t count = rows.size() / row_bytes;
  for (uint64_t id = 0; id < count; ++id) {
    const auto* row = reinterpret_cast<const char*>(rows.data()) + id * row_bytes;
    const auto put = StatusOf(db->Put(write, NumberKey(id), rocksdb::Slice(row, row_bytes)));
    if (!put.ok()) return put;
  }
  const auto sorted = StatusOf(db->CompactRange(rocksdb::CompactRangeOptions(), nullptr, nullptr));
  if (!sorted.ok()) return sorted;
  const std::unique_ptr<rocksdb::Iterator> it(db->NewIterator(rocksdb::ReadOptions()));
  for (it->SeekToFirst(); it->Valid(); it->Next()) {
  }
  return std::unique_ptr<MultiGetTable>(new MultiGetTable(std::move(impl)));
}

absl::Status MultiGetTable::Read(std::span<const uint64_t> ids, std::byte* out) const {
  std::vector<std::string> keys;
  keys.reserve(ids.size());
  for (const uint64_t id : ids) keys.push_back(NumberKey(id));
  const std::vector<rocksdb::Slice> slices(keys.begin(), keys.end());
  std::vector<rocksdb::PinnableSlice> values(ids.size());
  std::vector<rocksdb::Status> statuses(ids.size());
  impl_->db->MultiGet(rocksdb::ReadOptions(), impl_->db->DefaultColumnFamily(), ids.size(),
                      slices.data(), values.data(), statuses.data());
  for (size_t i = 0; i < ids.size(); ++i) {
    if (!statuses[i].ok()) return StatusOf(statuses[i]);
    std::memcpy(out + i * impl_->row_bytes, values[i].data(), impl_->row_bytes);
  }
  return absl::OkStatus();
}

}  // namespace expertmesh::engram_store

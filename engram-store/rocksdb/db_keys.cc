#include "engram-store/rocksdb/db_keys.h"

#include <algorithm>

namespace expertmesh::engram_store {
namespace {

template <class T>
void AppendBigEndian(T value, std::string& out) {
  for (int byte = sizeof(T) - 1; byte >= 0; --byte) {
    out.push_back(static_cast<char>(value >> (8 * byte)));
  }
}

}  // namespace

void AppendKey32(uint32_t value, std::string& out) { AppendBigEndian(value, out); }
void AppendKey64(uint64_t value, std::string& out) { AppendBigEndian(value, out); }

uint64_t ReadKey64(std::string_view key, size_t at) {
  uint64_t value = 0;
  for (size_t i = 0; i < 8; ++i) {
    value = value << 8 | static_cast<unsigned char>(key[at + i]);
  }
  return value;
}

std::string BlockKey(uint64_t root, uint32_t layer, uint64_t block) {
  std::string key;
  key.reserve(kRowKeyBytes);
  AppendKey64(root, key);
  AppendKey32(layer, key);
  AppendKey64(block, key);
  return key;
}

std::string RowKey(uint64_t root, uint32_t layer, uint64_t block, uint64_t change) {
  std::string key = BlockKey(root, layer, block);
  AppendKey64(~change, key);
  return key;
}

std::string NumberKey(uint64_t number) {
  std::string key;
  AppendKey64(number, key);
  return key;
}

engram::v1::TableShape ToProto(const TableShape& shape) {
  engram::v1::TableShape out;
  out.set_format(static_cast<engram::v1::RowFormat>(shape.format));
  out.set_width(shape.width);
  for (const TableShape::Layer& layer : shape.layers) {
    auto* to = out.add_layers();
    to->set_layer(layer.layer);
    to->set_rows(layer.rows);
  }
  return out;
}

TableShape FromProto(const engram::v1::TableShape& shape) {
  TableShape out;
  out.format = static_cast<RowFormat>(shape.format());
  out.width = shape.width();
  for (const auto& layer : shape.layers()) out.layers.push_back({layer.layer(), layer.rows()});
  return out;
}

engram::v1::EngramVersion ToProto(const VersionRecord& version) {
  engram::v1::EngramVersion out;
  out.set_version(version.version);
  out.mutable_model()->set_model(version.model);
  out.mutable_model()->set_revision(version.revision);
  out.set_rows(version.shape.total_rows());
  out.set_publish_number(version.publish_number);
  out.set_base(version.base);
  out.set_created_unix_ms(version.created_unix_ms);
  return out;
}

std::string EntryOf(const VersionRecord& version) {
  engram::v1::VersionEntry entry;
  *entry.mutable_version() = ToProto(version);
  *entry.mutable_shape() = ToProto(version.shape);
  entry.set_root(version.root);
  entry.mutable_changes()->Add(version.changes.begin(), version.changes.end());
  entry.set_sum(version.sum.data(), version.sum.size());
  return entry.SerializeAsString();
}

bool ParseEntry(std::string_view key, std::string_view value, VersionRecord& version) {
  engram::v1::VersionEntry entry;
  if (!entry.ParseFromArray(value.data(), static_cast<int>(value.size()))) return false;
  const auto& from = entry.version();
  version.model = from.model().model();
  version.revision = from.model().revision();
  version.version = from.version();
  version.base = from.base();
  version.publish_number = from.publish_number();
  version.created_unix_ms = from.created_unix_ms();
  version.shape = FromProto(entry.shape());
  version.root = entry.root();
  version.changes.assign(entry.changes().begin(), entry.changes().end());
  if (entry.sum().size() != version.sum.size()) return false;
  std::copy(entry.sum().begin(), entry.sum().end(), version.sum.begin());
  return version.key() == key && version.shape.Check().ok() && !version.changes.empty() &&
         version.changes.back() == version.root &&
         version.version == VersionName(VersionOf(version.shape, ContentSum(version.sum)));
}

}  // namespace expertmesh::engram_store

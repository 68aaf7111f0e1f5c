#include "engram-store/rocksdb/engram_db.h"

#include <rocksdb/db.h>

#include <cstring>
#include <filesystem>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "services/base/status.h"

namespace expertmesh::engram_store {
namespace {

using base::Error;
using base::Reason;
namespace fs = std::filesystem;

constexpr char kFormatKey[] = "format";
constexpr char kFormat[] = "expertmesh-engram 1";
constexpr char kVersionPrefix[] = "version/";
constexpr size_t kValueBytes = 16;

absl::Status Bad(const std::string& directory, const std::string& why) {
  return Error(Reason::kInvalidArgument, absl::StrCat("--data ", directory, ": ", why));
}

absl::Status FromRocks(const std::string& directory, const rocksdb::Status& status) {
  const std::string text = status.ToString();
  if (status.IsIOError() && absl::StrContains(text, "LOCK")) {
    return Bad(directory, "another process uses this database; stop it or name another directory");
  }
  if (status.IsCorruption()) {
    return Bad(directory, absl::StrCat("the database is damaged (", text,
                                       "); restore it, or name an empty directory"));
  }
  return Bad(directory, absl::StrCat("RocksDB cannot use it: ", text));
}

// What RocksDB leaves behind before it has made a database, and what a fresh file system holds.
bool IsNoData(const std::string& name) {
  return name == "LOCK" || name == "lost+found" || absl::StartsWith(name, "LOG");
}

// RocksDB would make a database in the middle of somebody's files.
absl::Status CheckDirectory(const std::string& directory) {
  std::error_code error;
  const fs::file_status status = fs::status(directory, error);
  if (!fs::exists(status)) return absl::OkStatus();
  if (!fs::is_directory(status)) return Bad(directory, "this is a file; name a directory");
  if (fs::exists(fs::path(directory) / "CURRENT", error)) return absl::OkStatus();
  fs::directory_iterator it(directory, error);
  for (const fs::directory_iterator end; !error && it != end; it.increment(error)) {
    const std::string name = it->path().filename().string();
    if (IsNoData(name)) continue;
    return Bad(directory, absl::StrCat("it holds other files (", name,
                                       ") and no database; name an empty directory"));
  }
  if (error) return Bad(directory, absl::StrCat("cannot be read: ", error.message()));
  return absl::OkStatus();
}

void AppendU64(uint64_t value, std::string& out) {
  for (int byte = 0; byte < 8; ++byte) out.push_back(static_cast<char>(value >> (8 * byte)));
}

uint64_t ReadU64(const char* from) {
  uint64_t value = 0;
  for (int byte = 0; byte < 8; ++byte) {
    value |= static_cast<uint64_t>(static_cast<unsigned char>(from[byte])) << (8 * byte);
  }
  return value;
}

bool ParseVersion(const rocksdb::Slice& key, const rocksdb::Slice& value, VersionRecord& record) {
  const absl::string_view names(key.data() + std::strlen(kVersionPrefix),
                                key.size() - std::strlen(kVersionPrefix));
  const std::vector<std::string> parts = absl::StrSplit(names, '\0');
  if (parts.size() != 3 || value.size() != kValueBytes) return false;
  record = {parts[0], parts[1], parts[2], ReadU64(value.data()), ReadU64(value.data() + 8)};
  return true;
}

}  // namespace

struct EngramDb::Impl {
  std::string directory;
  std::unique_ptr<rocksdb::DB> db;

  absl::Status CheckFormat();
};

// A database without the key is ours only if it is empty: just made, or cut off while it was.
absl::Status EngramDb::Impl::CheckFormat() {
  std::string format;
  rocksdb::Status status = db->Get(rocksdb::ReadOptions(), kFormatKey, &format);
  if (status.ok() && format == kFormat) return absl::OkStatus();
  if (status.ok()) {
    return Bad(directory, absl::StrCat("the database has format \"", format,
                                       "\", this program reads \"", kFormat, "\""));
  }
  if (!status.IsNotFound()) return FromRocks(directory, status);
  const std::unique_ptr<rocksdb::Iterator> it(db->NewIterator(rocksdb::ReadOptions()));
  it->SeekToFirst();
  if (it->Valid()) return Bad(directory, "this is a RocksDB database of another program");
  if (!it->status().ok()) return FromRocks(directory, it->status());
  rocksdb::WriteOptions synced;
  synced.sync = true;
  status = db->Put(synced, kFormatKey, kFormat);
  return status.ok() ? absl::OkStatus() : FromRocks(directory, status);
}

EngramDb::EngramDb(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
EngramDb::~EngramDb() = default;

absl::StatusOr<std::unique_ptr<EngramDb>> EngramDb::Open(const std::string& directory) {
  EM_RETURN_IF_ERROR(CheckDirectory(directory));
  rocksdb::Options options;
  options.create_if_missing = true;
  options.info_log_level = rocksdb::InfoLogLevel::WARN_LEVEL;  // the default depends on NDEBUG
  options.keep_log_file_num = 4;
  options.paranoid_checks = true;
  rocksdb::DB* db = nullptr;
  const rocksdb::Status status = rocksdb::DB::Open(options, directory, &db);
  if (!status.ok()) return FromRocks(directory, status);
  auto impl = std::make_unique<Impl>();
  impl->directory = directory;
  impl->db.reset(db);
  EM_RETURN_IF_ERROR(impl->CheckFormat());
  return std::unique_ptr<EngramDb>(new EngramDb(std::move(impl)));
}

absl::StatusOr<std::vector<VersionRecord>> EngramDb::ListVersions() const {
  std::vector<VersionRecord> versions;
  const std::unique_ptr<rocksdb::Iterator> it(impl_->db->NewIterator(rocksdb::ReadOptions()));
  for (it->Seek(kVersionPrefix); it->Valid() && it->key().starts_with(kVersionPrefix); it->Next()) {
    VersionRecord record;
    if (!ParseVersion(it->key(), it->value(), record)) {
      return Bad(impl_->directory, "a version's entry cannot be read; restore the database");
    }
    versions.push_back(std::move(record));
  }
  if (!it->status().ok()) return FromRocks(impl_->directory, it->status());
  return versions;
}

absl::Status EngramDb::PutVersion(const VersionRecord& version) {
  const std::string nul(1, '\0');
  for (const std::string* name : {&version.model, &version.revision, &version.version}) {
    if (absl::StrContains(*name, nul)) {
      return Error(Reason::kInvalidArgument, "the name of a version holds a NUL byte");
    }
  }
  std::string value;
  AppendU64(version.rows, value);
  AppendU64(version.sequence, value);
  rocksdb::WriteOptions synced;
  synced.sync = true;
  const rocksdb::Status status = impl_->db->Put(
      synced,
      absl::StrCat(kVersionPrefix, version.model, nul, version.revision, nul, version.version),
      value);
  return status.ok() ? absl::OkStatus() : FromRocks(impl_->directory, status);
}

}  // namespace expertmesh::engram_store

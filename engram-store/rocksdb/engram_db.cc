#include "engram-store/rocksdb/engram_db.h"

#include <rocksdb/db.h>
#include <rocksdb/sst_file_writer.h>
#include <rocksdb/table.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <filesystem>
#include <optional>
#include <set>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "engram-store/rocksdb/db_keys.h"
#include "services/base/status.h"

namespace expertmesh::engram_store {
namespace {

using base::Error;
using base::Reason;
namespace fs = std::filesystem;

constexpr char kFormatKey[] = "format";
constexpr char kFormat[] = "expertmesh-engram 2";
constexpr char kFormatWithoutTables[] = "expertmesh-engram 1";
constexpr char kImportPrefix[] = "import.partial-";
constexpr uint64_t kTableFileBytes = uint64_t{256} << 20;

enum Family : size_t { kDefault, kVersions, kRows, kChanges, kAudit, kFamilyCount };
constexpr std::array<const char*, kFamilyCount> kFamilyNames = {"default", "versions", "rows",
                                                                "changes", "audit"};

absl::Status Bad(const std::string& directory, const std::string& why) {
  return Error(Reason::kInvalidArgument, absl::StrCat("--data ", directory, ": ", why));
}

bool IsDiskFull(const rocksdb::Status& status, const std::string& text) {
  return status.IsNoSpace() || absl::StrContains(text, "No space left") ||
         absl::StrContains(text, "File too large") || absl::StrContains(text, "quota exceeded");
}

absl::Status FromRocks(const std::string& directory, const rocksdb::Status& status) {
  const std::string text = status.ToString();
  if (IsDiskFull(status, text)) {
    return Error(Reason::kDiskFull, absl::StrCat("--data ", directory, ": ", text));
  }
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
  return name == "LOCK" || name == "lost+found" || absl::StartsWith(name, "LOG") ||
         absl::StartsWith(name, kImportPrefix);
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

// Names stand in keys, apart by NUL.
absl::Status CheckNames(const VersionRecord& version) {
  for (const std::string* name : {&version.model, &version.revision, &version.version}) {
    if (name->find('\0') != std::string::npos) {
      return Error(Reason::kInvalidArgument, "the name of a version holds a NUL byte");
    }
  }
  return absl::OkStatus();
}

rocksdb::WriteOptions Synced() {
  rocksdb::WriteOptions options;
  options.sync = true;
  return options;
}

rocksdb::Slice SliceOf(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

std::span<const std::byte> BytesOf(const rocksdb::Slice& slice) {
  return std::as_bytes(std::span(slice.data(), slice.size()));
}

std::string_view View(const rocksdb::Slice& slice) { return {slice.data(), slice.size()}; }

rocksdb::Options DbOptions() {
  rocksdb::Options options;
  options.create_if_missing = true;
  options.create_missing_column_families = true;
  options.info_log_level = rocksdb::InfoLogLevel::WARN_LEVEL;  // the default depends on NDEBUG
  options.keep_log_file_num = 4;
  options.paranoid_checks = true;
  options.compression = rocksdb::kNoCompression;  // rows are quantised already
  return options;
}

}  // namespace

struct EngramDb::Impl {
  ~Impl() {
    for (rocksdb::ColumnFamilyHandle* family : families) db->DestroyColumnFamilyHandle(family);
  }

  std::string directory;
  std::unique_ptr<rocksdb::DB> db;
  std::vector<rocksdb::ColumnFamilyHandle*> families;
  uint64_t next_audit = 1;

  absl::Status OpenAll();
  absl::Status CheckFormat();
  absl::Status DropUnknownRoots(const std::vector<VersionRecord>& versions);
  absl::Status FindNextAudit();
  absl::Status Write(rocksdb::WriteBatch& batch, const engram::v1::AuditEntry& audit);
  std::unique_ptr<rocksdb::Iterator> Iterate(Family family) const {
    return std::unique_ptr<rocksdb::Iterator>(
        db->NewIterator(rocksdb::ReadOptions(), families[family]));
  }
  absl::Status From(const rocksdb::Status& status) const {
    return status.ok() ? absl::OkStatus() : FromRocks(directory, status);
  }
  absl::Status Damaged(const VersionRecord& version, uint32_t layer, uint64_t block) const {
    return Error(
        Reason::kEngramChecksum,
        absl::StrCat(directory, ": version ", version.version.substr(0, 12), ", layer ", layer,
                     ": block ", block, " is missing or has another size; restore the database"));
  }
};

// Before anything is added to it: is this database ours?
absl::Status EngramDb::Impl::CheckFormat() {
  std::vector<std::string> names;
  const rocksdb::Status listed =
      rocksdb::DB::ListColumnFamilies(rocksdb::DBOptions(), directory, &names);
  if (!listed.ok() || names.size() > 1) {
    for (const std::string& name : names) {
      if (std::find(kFamilyNames.begin(), kFamilyNames.end(), name) == kFamilyNames.end()) {
        return Bad(directory, "this is a RocksDB database of another program");
      }
    }
    return absl::OkStatus();  // the one that cannot be read fails when it is opened
  }
  rocksdb::Options options = DbOptions();
  options.create_if_missing = false;
  rocksdb::DB* opened = nullptr;
  const rocksdb::Status status = rocksdb::DB::Open(options, directory, &opened);
  if (!status.ok()) return From(status);
  const std::unique_ptr<rocksdb::DB> closes(opened);
  std::string format;
  const rocksdb::Status found = opened->Get(rocksdb::ReadOptions(), kFormatKey, &format);
  if (found.ok() && format != kFormat && format != kFormatWithoutTables) {
    return Bad(directory, absl::StrCat("the database has format \"", format,
                                       "\", this program reads \"", kFormat, "\""));
  }
  if (found.ok()) return absl::OkStatus();
  if (!found.IsNotFound()) return From(found);
  const std::unique_ptr<rocksdb::Iterator> it(opened->NewIterator(rocksdb::ReadOptions()));
  it->SeekToFirst();
  if (it->Valid()) return Bad(directory, "this is a RocksDB database of another program");
  return From(it->status());
}

absl::Status EngramDb::Impl::OpenAll() {
  const rocksdb::Options options = DbOptions();
  std::vector<rocksdb::ColumnFamilyDescriptor> descriptors;
  descriptors.reserve(kFamilyCount);
  for (const char* name : kFamilyNames) descriptors.emplace_back(name, options);
  rocksdb::DB* opened = nullptr;
  EM_RETURN_IF_ERROR(From(rocksdb::DB::Open(options, directory, descriptors, &families, &opened)));
  db.reset(opened);
  std::string format;
  const rocksdb::Status found = db->Get(rocksdb::ReadOptions(), kFormatKey, &format);
  if (!found.ok() && !found.IsNotFound()) return From(found);
  if (found.ok() && format == kFormat) return absl::OkStatus();
  if (found.ok() && format != kFormatWithoutTables) {
    return Bad(directory, absl::StrCat("the database has format \"", format,
                                       "\", this program reads \"", kFormat, "\""));
  }
  return From(db->Put(Synced(), kFormatKey, kFormat));
}

// Rows that an import put there before it was stopped.
absl::Status EngramDb::Impl::DropUnknownRoots(const std::vector<VersionRecord>& versions) {
  std::set<uint64_t> known;
  for (const VersionRecord& version : versions) known.insert(version.root);
  const auto it = Iterate(kRows);
  for (it->SeekToFirst(); it->Valid();) {
    const uint64_t root = ReadKey64(View(it->key()), 0);
    const std::string next = NumberKey(root + 1);
    if (!known.contains(root)) {
      EM_RETURN_IF_ERROR(From(db->DeleteRange(Synced(), families[kRows], NumberKey(root), next)));
    }
    it->Seek(next);
  }
  return From(it->status());
}

absl::Status EngramDb::Impl::FindNextAudit() {
  const auto it = Iterate(kAudit);
  it->SeekToLast();
  if (it->Valid()) next_audit = ReadKey64(View(it->key()), 0) + 1;
  return From(it->status());
}

absl::Status EngramDb::Impl::Write(rocksdb::WriteBatch& batch,
                                   const engram::v1::AuditEntry& audit) {
  rocksdb::Status status =
      batch.Put(families[kAudit], NumberKey(next_audit), audit.SerializeAsString());
  if (status.ok()) status = db->Write(Synced(), &batch);
  if (!status.ok()) {
    // After a full disk RocksDB refuses writes until told that there is room again.
    if (db->Resume().ok()) status = db->Write(Synced(), &batch);
  }
  if (status.ok()) ++next_audit;
  return From(status);
}

EngramDb::EngramDb(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
EngramDb::~EngramDb() = default;

absl::StatusOr<std::unique_ptr<EngramDb>> EngramDb::Open(const std::string& directory) {
  EM_RETURN_IF_ERROR(CheckDirectory(directory));
  auto impl = std::make_unique<Impl>();
  impl->directory = directory;
  std::error_code error;
  if (fs::exists(fs::path(directory) / "CURRENT", error)) {
    EM_RETURN_IF_ERROR(impl->CheckFormat());
  }
  EM_RETURN_IF_ERROR(impl->OpenAll());
  EM_RETURN_IF_ERROR(impl->FindNextAudit());
  std::unique_ptr<EngramDb> db(new EngramDb(std::move(impl)));
  EM_ASSIGN_OR_RETURN(const std::vector<VersionRecord> versions, db->ListVersions());
  EM_RETURN_IF_ERROR(db->impl_->DropUnknownRoots(versions));
  for (const fs::directory_entry& entry : fs::directory_iterator(directory, error)) {
    if (absl::StartsWith(entry.path().filename().string(), kImportPrefix)) {
      fs::remove_all(entry.path(), error);
    }
  }
  return db;
}

absl::StatusOr<std::vector<VersionRecord>> EngramDb::ListVersions() const {
  std::vector<VersionRecord> versions;
  const auto it = impl_->Iterate(kVersions);
  for (it->SeekToFirst(); it->Valid(); it->Next()) {
    VersionRecord record;
    if (!ParseEntry(View(it->key()), View(it->value()), record)) {
      return Bad(impl_->directory, "a version's entry cannot be read; restore the database");
    }
    versions.push_back(std::move(record));
  }
  EM_RETURN_IF_ERROR(impl_->From(it->status()));
  return versions;
}

namespace {

// Sorted table files beside the database, then taken in as one step: a full disk meets files that
// are not the database's yet.
class SortedImport final : public EngramDb::Import {
 public:
  using Ingest = std::function<absl::Status(const std::vector<std::string>& files,
                                            const VersionRecord& version,
                                            const engram::v1::AuditEntry& audit)>;

  SortedImport(std::string directory, std::string folder, uint64_t root, Ingest ingest)
      : directory_(std::move(directory)),
        folder_(std::move(folder)),
        root_(root),
        ingest_(std::move(ingest)) {}
  ~SortedImport() override {
    writer_.reset();
    std::error_code error;
    fs::remove_all(folder_, error);
  }

  absl::Status Add(uint32_t layer, uint64_t block, std::span<const std::byte> records) override {
    if (!writer_) {
      files_.push_back(absl::StrCat(folder_, "/", files_.size(), ".sst"));
      writer_.emplace(rocksdb::EnvOptions(), DbOptions());
      EM_RETURN_IF_ERROR(From(writer_->Open(files_.back())));
    }
    EM_RETURN_IF_ERROR(From(writer_->Put(RowKey(root_, layer, block, root_), SliceOf(records))));
    return writer_->FileSize() < kTableFileBytes ? absl::OkStatus() : Close();
  }

  absl::Status Commit(const VersionRecord& version, const engram::v1::AuditEntry& audit) override {
    EM_RETURN_IF_ERROR(CheckNames(version));
    EM_RETURN_IF_ERROR(Close());
    return ingest_(files_, version, audit);
  }

 private:
  absl::Status Close() {
    if (!writer_) return absl::OkStatus();
    const rocksdb::Status status = writer_->Finish();
    writer_.reset();
    return From(status);
  }
  absl::Status From(const rocksdb::Status& status) const {
    return status.ok() ? absl::OkStatus() : FromRocks(directory_, status);
  }

  const std::string directory_;
  const std::string folder_;
  const uint64_t root_;
  const Ingest ingest_;
  std::vector<std::string> files_;
  std::optional<rocksdb::SstFileWriter> writer_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<EngramDb::Import>> EngramDb::BeginImport(uint64_t root) {
  const std::string folder = absl::StrCat(impl_->directory, "/", kImportPrefix, getpid());
  std::error_code error;
  fs::remove_all(folder, error);
  fs::create_directories(folder, error);
  if (error) return Bad(impl_->directory, absl::StrCat("cannot be written: ", error.message()));
  const auto ingest = [impl = impl_.get()](const std::vector<std::string>& files,
                                           const VersionRecord& version,
                                           const engram::v1::AuditEntry& audit) -> absl::Status {
    rocksdb::IngestExternalFileOptions options;
    options.move_files = true;
    if (!files.empty()) {
      EM_RETURN_IF_ERROR(
          impl->From(impl->db->IngestExternalFile(impl->families[kRows], files, options)));
    }
    rocksdb::WriteBatch batch;
    EM_RETURN_IF_ERROR(
        impl->From(batch.Put(impl->families[kVersions], version.key(), EntryOf(version))));
    return impl->Write(batch, audit);
  };
  return std::unique_ptr<Import>(
      std::make_unique<SortedImport>(impl_->directory, folder, root, ingest));
}

absl::Status EngramDb::AddVersion(const VersionRecord& version,
                                  std::span<const ChangedBlock> blocks,
                                  const engram::v1::AuditEntry& audit) {
  EM_RETURN_IF_ERROR(CheckNames(version));
  const uint64_t change = version.changes.front();
  rocksdb::WriteBatch batch;
  std::string changed;
  for (const ChangedBlock& block : blocks) {
    EM_RETURN_IF_ERROR(impl_->From(batch.Put(impl_->families[kRows],
                                             RowKey(version.root, block.layer, block.block, change),
                                             block.records)));
    AppendKey32(block.layer, changed);
    AppendKey64(block.block, changed);
  }
  EM_RETURN_IF_ERROR(impl_->From(batch.Put(impl_->families[kChanges], NumberKey(change), changed)));
  EM_RETURN_IF_ERROR(
      impl_->From(batch.Put(impl_->families[kVersions], version.key(), EntryOf(version))));
  return impl_->Write(batch, audit);
}

absl::Status EngramDb::PutVersion(const VersionRecord& version,
                                  const engram::v1::AuditEntry& audit) {
  EM_RETURN_IF_ERROR(CheckNames(version));
  rocksdb::WriteBatch batch;
  EM_RETURN_IF_ERROR(
      impl_->From(batch.Put(impl_->families[kVersions], version.key(), EntryOf(version))));
  return impl_->Write(batch, audit);
}

absl::Status EngramDb::RemoveVersions(std::span<const VersionRecord> gone,
                                      std::span<const VersionRecord> left,
                                      const engram::v1::AuditEntry& audit) {
  std::set<uint64_t> needed;
  for (const VersionRecord& v : left) needed.insert(v.changes.begin(), v.changes.end());
  rocksdb::WriteBatch batch;
  std::set<uint64_t> done;
  for (const VersionRecord& v : gone) {
    EM_RETURN_IF_ERROR(impl_->From(batch.Delete(impl_->families[kVersions], v.key())));
    for (const uint64_t change : v.changes) {
      if (needed.contains(change) || !done.insert(change).second) continue;
      if (change == v.root) {
        EM_RETURN_IF_ERROR(impl_->From(
            batch.DeleteRange(impl_->families[kRows], NumberKey(change), NumberKey(change + 1))));
        continue;
      }
      std::string blocks;
      const rocksdb::Status found = impl_->db->Get(
          rocksdb::ReadOptions(), impl_->families[kChanges], NumberKey(change), &blocks);
      if (!found.ok() && !found.IsNotFound()) return impl_->From(found);
      constexpr size_t kEach = kBlockKeyBytes - 8;  // a block's key without its root
      for (size_t at = 0; at + kEach <= blocks.size(); at += kEach) {
        std::string key = NumberKey(v.root);
        key.append(blocks, at, kEach);
        AppendKey64(~change, key);
        EM_RETURN_IF_ERROR(impl_->From(batch.Delete(impl_->families[kRows], key)));
      }
      EM_RETURN_IF_ERROR(impl_->From(batch.Delete(impl_->families[kChanges], NumberKey(change))));
    }
  }
  return impl_->Write(batch, audit);
}

absl::Status EngramDb::ReadBlocks(const VersionRecord& version, uint32_t layer,
                                  std::span<const uint64_t> blocks, const UseBlock& use) const {
  const TableShape::Layer* table = version.shape.Find(layer);
  const auto check = [&](uint64_t block, const rocksdb::Slice& value) -> absl::Status {
    const uint64_t wanted =
        version.shape.rows_of_block(*table, block) * version.shape.record_bytes();
    if (value.size() != wanted) return impl_->Damaged(version, layer, block);
    return use(block, BytesOf(value));
  };
  if (version.changes.size() == 1) {
    rocksdb::PinnableSlice value;
    for (const uint64_t block : blocks) {
      value.Reset();
      const rocksdb::Status found =
          impl_->db->Get(rocksdb::ReadOptions(), impl_->families[kRows],
                         RowKey(version.root, layer, block, version.root), &value);
      if (!found.ok()) return impl_->Damaged(version, layer, block);
      EM_RETURN_IF_ERROR(check(block, value));
    }
    return absl::OkStatus();
  }
  const std::set<uint64_t> chain(version.changes.begin(), version.changes.end());
  const auto it = impl_->Iterate(kRows);
  for (const uint64_t block : blocks) {
    const std::string prefix = BlockKey(version.root, layer, block);
    it->Seek(prefix);
    while (it->Valid() && it->key().starts_with(prefix) &&
           !chain.contains(~ReadKey64(View(it->key()), kBlockKeyBytes))) {
      it->Next();
    }
    if (!it->Valid() || !it->key().starts_with(prefix)) {
      return impl_->Damaged(version, layer, block);
    }
    EM_RETURN_IF_ERROR(check(block, it->value()));
  }
  return absl::OkStatus();
}

absl::Status EngramDb::ReadTable(const VersionRecord& version, uint32_t layer,
                                 const UseBlock& use) const {
  const TableShape::Layer* table = version.shape.Find(layer);
  const std::set<uint64_t> chain(version.changes.begin(), version.changes.end());
  const auto it = impl_->Iterate(kRows);
  uint64_t wanted = 0;
  const std::string prefix = BlockKey(version.root, layer, 0).substr(0, 12);
  for (it->Seek(prefix); it->Valid() && it->key().starts_with(prefix); it->Next()) {
    const uint64_t block = ReadKey64(View(it->key()), 12);
    if (block < wanted || !chain.contains(~ReadKey64(View(it->key()), kBlockKeyBytes))) continue;
    const uint64_t bytes =
        version.shape.rows_of_block(*table, block) * version.shape.record_bytes();
    if (block != wanted || it->value().size() != bytes) break;
    EM_RETURN_IF_ERROR(use(block, BytesOf(it->value())));
    ++wanted;
  }
  EM_RETURN_IF_ERROR(impl_->From(it->status()));
  if (wanted == version.shape.blocks(*table)) return absl::OkStatus();
  return impl_->Damaged(version, layer, wanted);
}

absl::Status EngramDb::AddAudit(const engram::v1::AuditEntry& entry) {
  rocksdb::WriteBatch batch;
  return impl_->Write(batch, entry);
}

absl::StatusOr<std::vector<engram::v1::AuditEntry>> EngramDb::ListAudit(size_t limit) const {
  std::vector<engram::v1::AuditEntry> entries;
  const auto it = impl_->Iterate(kAudit);
  for (it->SeekToLast(); it->Valid() && entries.size() < limit; it->Prev()) {
    engram::v1::AuditEntry entry;
    if (!entry.ParseFromArray(it->value().data(), static_cast<int>(it->value().size()))) {
      return Bad(impl_->directory, "a line of the audit cannot be read; restore the database");
    }
    entries.push_back(std::move(entry));
  }
  EM_RETURN_IF_ERROR(impl_->From(it->status()));
  return entries;
}

}  // namespace expertmesh::engram_store

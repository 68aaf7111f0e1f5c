#include "engram-store/rocksdb/engram_db.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <rocksdb/db.h>
#include <sys/stat.h>

#include "services/base/status.h"
#include "tests/support/temp_dir.h"

namespace expertmesh::engram_store {
namespace {

using base::Reason;
using test_support::TempDir;
using test_support::WriteFile;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::UnorderedElementsAre;

/// Tables of 5 rows of 2 floats in layer 1, of which nothing is stored.
VersionRecord Version(const std::string& revision, uint64_t published) {
  VersionRecord v;
  v.model = "tiny";
  v.revision = revision;
  v.shape = {RowFormat::kF32, 2, {{1, 5}}};
  v.root = 7;
  v.changes = {7};
  v.publish_number = published;
  v.version = VersionName(VersionOf(v.shape, ContentSum(v.sum)));
  return v;
}
const VersionRecord kFirst = Version("rev-a", 1);
const VersionRecord kSecond = Version("rev-b", 0);

engram::v1::AuditEntry Audit(const std::string& action) {
  engram::v1::AuditEntry entry;
  entry.set_action(action);
  return entry;
}

std::vector<std::byte> Records(std::byte fill, size_t rows = 5) {
  return std::vector<std::byte>(rows * 12, fill);
}

std::string ReadAll(const EngramDb& db, const VersionRecord& version) {
  std::string rows;
  const absl::Status read =
      db.ReadTable(version, 1, [&](uint64_t, std::span<const std::byte> records) {
        rows.append(reinterpret_cast<const char*>(records.data()), records.size());
        return absl::OkStatus();
      });
  return read.ok() ? rows : std::string(base::ReasonName(base::ReasonOf(read)));
}

/// Opening fails with kInvalidArgument; the message, which is one line.
std::string WhyNot(const std::string& directory) {
  const auto db = EngramDb::Open(directory);
  EXPECT_FALSE(db.ok());
  EXPECT_EQ(base::ReasonOf(db.status()), Reason::kInvalidArgument) << db.status();
  const std::string why(db.status().message());
  EXPECT_EQ(why.find('\n'), std::string::npos) << why;
  EXPECT_THAT(why, HasSubstr(directory));
  return why;
}

/// A database of nobody in particular, with one entry.
void MakeDatabase(const std::string& directory, const std::string& key, const std::string& value) {
  rocksdb::Options options;
  options.create_if_missing = true;
  rocksdb::DB* db = nullptr;
  ASSERT_TRUE(rocksdb::DB::Open(options, directory, &db).ok());
  const std::unique_ptr<rocksdb::DB> owned(db);
  ASSERT_TRUE(db->Put(rocksdb::WriteOptions(), key, value).ok());
}

TEST(EngramDbTest, ANewDirectoryIsEmptyAndOpensAgain) {
  const TempDir dir;
  for (int round = 0; round < 3; ++round) {
    const auto db = EngramDb::Open(dir / "engram");
    ASSERT_TRUE(db.ok()) << db.status();
    EXPECT_THAT(*(*db)->ListVersions(), IsEmpty());
  }
}

TEST(EngramDbTest, AFreshFileSystemIsADirectoryToo) {
  const TempDir dir;
  ASSERT_EQ(mkdir((dir / "lost+found").c_str(), 0700), 0);
  EXPECT_TRUE(EngramDb::Open(dir.path()).ok());
}

TEST(EngramDbTest, VersionsSurviveAReopen) {
  const TempDir dir;
  {
    const auto db = EngramDb::Open(dir.path());
    ASSERT_TRUE(db.ok()) << db.status();
    ASSERT_TRUE((*db)->PutVersion(kFirst, Audit("publish")).ok());
    ASSERT_TRUE((*db)->PutVersion(kSecond, Audit("publish")).ok());
  }
  const auto db = EngramDb::Open(dir.path());
  ASSERT_TRUE(db.ok()) << db.status();
  EXPECT_THAT(*(*db)->ListVersions(), UnorderedElementsAre(kFirst, kSecond));
  VersionRecord changed = kFirst;
  changed.publish_number = 9;
  ASSERT_TRUE((*db)->PutVersion(changed, Audit("publish")).ok());
  EXPECT_THAT(*(*db)->ListVersions(), UnorderedElementsAre(changed, kSecond));
}

TEST(EngramDbTest, NamesWithNulAreRefused) {
  const TempDir dir;
  const auto db = EngramDb::Open(dir.path());
  ASSERT_TRUE(db.ok()) << db.status();
  VersionRecord bad = kFirst;
  bad.model.push_back('\0');
  EXPECT_EQ(base::ReasonOf((*db)->PutVersion(bad, {})), Reason::kInvalidArgument);
  EXPECT_THAT(*(*db)->ListVersions(), IsEmpty());
}

TEST(EngramDbTest, ALockedDirectorySaysSo) {
  const TempDir dir;
  const auto first = EngramDb::Open(dir.path());
  ASSERT_TRUE(first.ok()) << first.status();
  EXPECT_THAT(WhyNot(dir.path()), HasSubstr("another process uses this database"));
  EXPECT_TRUE((*first)->PutVersion(kFirst, Audit("publish")).ok());  // the first is unharmed
}

TEST(EngramDbTest, AFileIsNoDirectory) {
  const TempDir dir;
  WriteFile(dir / "file", "x");
  EXPECT_THAT(WhyNot(dir / "file"), HasSubstr("this is a file"));
}

TEST(EngramDbTest, OtherPeoplesFilesAreLeftAlone) {
  const TempDir dir;
  WriteFile(dir / "thesis.txt", "x");
  EXPECT_THAT(WhyNot(dir.path()), HasSubstr("thesis.txt"));
  struct stat info = {};
  EXPECT_NE(stat((dir / "CURRENT").c_str(), &info), 0);
}

TEST(EngramDbTest, AMissingParentIsAnError) {
  const TempDir dir;
  WhyNot(dir / "a/b/c");
}

TEST(EngramDbTest, AnotherProgramsDatabaseIsRefused) {
  const TempDir dir;
  MakeDatabase(dir.path(), "account/7", "12");
  EXPECT_THAT(WhyNot(dir.path()), HasSubstr("another program"));
}

TEST(EngramDbTest, ALaterFormatIsRefused) {
  const TempDir dir;
  MakeDatabase(dir.path(), "format", "expertmesh-engram 3");
  EXPECT_THAT(WhyNot(dir.path()), HasSubstr("expertmesh-engram 3"));
}

TEST(EngramDbTest, ADamagedDatabaseIsRefused) {
  const TempDir dir;
  { ASSERT_TRUE(EngramDb::Open(dir.path()).ok()); }
  WriteFile(dir / "CURRENT", "MANIFEST-nonsense");
  WhyNot(dir.path());
  WriteFile(dir / "CURRENT", "MANIFEST-000999\n");
  WhyNot(dir.path());
}

TEST(EngramDbTest, AFormatWithoutTablesIsTakenOver) {
  const TempDir dir;
  MakeDatabase(dir.path(), "format", "expertmesh-engram 1");
  for (int round = 0; round < 2; ++round) {
    const auto db = EngramDb::Open(dir.path());
    ASSERT_TRUE(db.ok()) << db.status();
    EXPECT_THAT(*(*db)->ListVersions(), IsEmpty());
  }
}

TEST(EngramDbTest, AnImportIsThereOnceCommitted) {
  const TempDir dir;
  {
    const auto db = *EngramDb::Open(dir.path());
    {
      const auto dropped = *db->BeginImport(7);
      ASSERT_TRUE(dropped->Add(1, 0, Records(std::byte{1})).ok());
    }
    EXPECT_EQ(ReadAll(*db, kFirst), "ENGRAM_CHECKSUM");
    const auto import = *db->BeginImport(7);
    ASSERT_TRUE(import->Add(1, 0, Records(std::byte{2})).ok());
    ASSERT_TRUE(import->Commit(kFirst, Audit("import")).ok());
  }
  const auto db = *EngramDb::Open(dir.path());
  EXPECT_THAT(*db->ListVersions(), testing::ElementsAre(kFirst));
  EXPECT_EQ(ReadAll(*db, kFirst), std::string(60, 2));
  EXPECT_EQ((*db->ListAudit(9)).size(), 1u);
}

TEST(EngramDbTest, RowsOfAnImportWithoutAnEntryGoAtTheNextOpen) {
  const TempDir dir;
  {
    const auto db = *EngramDb::Open(dir.path());
    const auto import = *db->BeginImport(7);
    ASSERT_TRUE(import->Add(1, 0, Records(std::byte{2})).ok());
    VersionRecord bad = kFirst;
    bad.model.push_back('\0');
    ASSERT_FALSE(import->Commit(bad, {}).ok());
    const auto other = *db->BeginImport(8);
    ASSERT_TRUE(other->Add(1, 0, Records(std::byte{3})).ok());
    ASSERT_TRUE(other->Commit(kFirst, {}).ok());  // an entry that names another root
  }
  const auto db = *EngramDb::Open(dir.path());
  VersionRecord elsewhere = kFirst;
  elsewhere.root = 8;
  elsewhere.changes = {8};
  EXPECT_EQ(ReadAll(*db, elsewhere), "ENGRAM_CHECKSUM");
}

TEST(EngramDbTest, AChainReadsItsNewestChangeAndDropsOnlyItsOwn) {
  const TempDir dir;
  const auto db = *EngramDb::Open(dir.path());
  const auto import = *db->BeginImport(7);
  ASSERT_TRUE(import->Add(1, 0, Records(std::byte{1})).ok());
  ASSERT_TRUE(import->Commit(kFirst, {}).ok());
  const auto child = [&](const std::string& revision, std::vector<uint64_t> changes, char fill) {
    VersionRecord v = Version(revision, 0);
    v.changes = std::move(changes);
    const ChangedBlock block{1, 0, std::string(60, fill)};
    EXPECT_TRUE(db->AddVersion(v, std::span(&block, 1), {}).ok());
    return v;
  };
  const VersionRecord a = child("a", {8, 7}, 2);
  const VersionRecord b = child("b", {9, 8, 7}, 3);
  const VersionRecord c = child("c", {10, 7}, 4);
  EXPECT_EQ(ReadAll(*db, kFirst), std::string(60, 1));
  EXPECT_EQ(ReadAll(*db, a), std::string(60, 2));
  EXPECT_EQ(ReadAll(*db, b), std::string(60, 3));
  EXPECT_EQ(ReadAll(*db, c), std::string(60, 4));
  const std::vector<VersionRecord> left = {b};
  ASSERT_TRUE(db->RemoveVersions(std::vector{kFirst, a, c}, left, Audit("prune")).ok());
  EXPECT_EQ(ReadAll(*db, b), std::string(60, 3));
  EXPECT_EQ(ReadAll(*db, c), std::string(60, 1));  // change 10 is gone, the root is b's too
  EXPECT_THAT(*db->ListVersions(), testing::ElementsAre(b));
  ASSERT_TRUE(db->RemoveVersions(left, {}, Audit("prune")).ok());
  EXPECT_EQ(ReadAll(*db, b), "ENGRAM_CHECKSUM");
}

TEST(EngramDbTest, AnEntryThatCannotBeReadIsAnError) {
  for (const std::string& value : {std::string("short"), std::string()}) {
    const TempDir dir;
    { ASSERT_TRUE(EngramDb::Open(dir.path()).ok()); }
    {
      std::vector<rocksdb::ColumnFamilyHandle*> families;
      std::vector<rocksdb::ColumnFamilyDescriptor> names;
      for (const char* name : {"default", "versions", "rows", "changes", "audit"}) {
        names.emplace_back(name, rocksdb::ColumnFamilyOptions());
      }
      rocksdb::DB* db = nullptr;
      ASSERT_TRUE(rocksdb::DB::Open(rocksdb::Options(), dir.path(), names, &families, &db).ok());
      const std::unique_ptr<rocksdb::DB> owned(db);
      ASSERT_TRUE(db->Put(rocksdb::WriteOptions(), families[1], kFirst.key(), value).ok());
      for (rocksdb::ColumnFamilyHandle* family : families) db->DestroyColumnFamilyHandle(family);
    }
    EXPECT_EQ(base::ReasonOf(EngramDb::Open(dir.path()).status()), Reason::kInvalidArgument);
  }
}

}  // namespace
}  // namespace expertmesh::engram_store

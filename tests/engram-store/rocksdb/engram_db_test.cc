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

const VersionRecord kFirst{"tiny", "rev-a", "v1", 10, 1};
const VersionRecord kSecond{"tiny", "rev-b", "v2", 0xFFFF'FFFF'FFFF, 2};

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
    ASSERT_TRUE((*db)->PutVersion(kFirst).ok());
    ASSERT_TRUE((*db)->PutVersion(kSecond).ok());
  }
  const auto db = EngramDb::Open(dir.path());
  ASSERT_TRUE(db.ok()) << db.status();
  EXPECT_THAT(*(*db)->ListVersions(), UnorderedElementsAre(kFirst, kSecond));
  VersionRecord changed = kFirst;
  changed.sequence = 9;
  ASSERT_TRUE((*db)->PutVersion(changed).ok());
  EXPECT_THAT(*(*db)->ListVersions(), UnorderedElementsAre(changed, kSecond));
}

TEST(EngramDbTest, NamesWithNulAreRefused) {
  const TempDir dir;
  const auto db = EngramDb::Open(dir.path());
  ASSERT_TRUE(db.ok()) << db.status();
  VersionRecord bad = kFirst;
  bad.model.push_back('\0');
  EXPECT_EQ(base::ReasonOf((*db)->PutVersion(bad)), Reason::kInvalidArgument);
  EXPECT_THAT(*(*db)->ListVersions(), IsEmpty());
}

TEST(EngramDbTest, ALockedDirectorySaysSo) {
  const TempDir dir;
  const auto first = EngramDb::Open(dir.path());
  ASSERT_TRUE(first.ok()) << first.status();
  EXPECT_THAT(WhyNot(dir.path()), HasSubstr("another process uses this database"));
  EXPECT_TRUE((*first)->PutVersion(kFirst).ok());  // the first is unharmed
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
  MakeDatabase(dir.path(), "format", "expertmesh-engram 2");
  EXPECT_THAT(WhyNot(dir.path()), HasSubstr("expertmesh-engram 2"));
}

TEST(EngramDbTest, ADamagedDatabaseIsRefused) {
  const TempDir dir;
  { ASSERT_TRUE(EngramDb::Open(dir.path()).ok()); }
  WriteFile(dir / "CURRENT", "MANIFEST-nonsense");
  WhyNot(dir.path());
  WriteFile(dir / "CURRENT", "MANIFEST-000999\n");
  WhyNot(dir.path());
}

TEST(EngramDbTest, AnEntryThatCannotBeReadIsAnError) {
  const char nul = '\0';
  const std::string good_key = std::string("version/tiny") + nul + "rev" + nul + "v1";
  const std::pair<std::string, std::string> cases[] = {{good_key, "short"},
                                                       {good_key, std::string(17, 'x')},
                                                       {"version/tiny", std::string(16, 'x')},
                                                       {good_key + nul, std::string(16, 'x')}};
  for (const auto& [key, value] : cases) {
    const TempDir dir;
    { ASSERT_TRUE(EngramDb::Open(dir.path()).ok()); }
    MakeDatabase(dir.path(), key, value);
    const auto db = EngramDb::Open(dir.path());
    ASSERT_TRUE(db.ok()) << db.status();
    EXPECT_EQ(base::ReasonOf((*db)->ListVersions().status()), Reason::kInvalidArgument) << value;
  }
}

}  // namespace
}  // namespace expertmesh::engram_store

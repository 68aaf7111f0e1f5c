#include "engram-store/engram_tables.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>

#include <csignal>
#include <filesystem>

#include "absl/strings/str_cat.h"
#include "services/base/status.h"
#include "tests/engram-store/store_fixture.h"

namespace expertmesh::engram_store {
namespace {

using base::Reason;
using base::ReasonOf;
using test_support::ReadFile;
using test_support::TempDir;
using test_support::WriteFile;
using testing::HasSubstr;
namespace fs = std::filesystem;

const Caller kMe{"t", "me"};

class EngramTablesTest : public testing::Test {
 protected:
  void SetUp() override {
    WriteMemoryModel(model_);
    revision_ = RevisionOf(model_);
  }

  absl::Status Open(bool cold = false, std::vector<std::string> publishers = {}) {
    tables_.reset();
    EngramTables::Options options;
    options.data_directory = data_;
    options.cold = cold;
    options.hot_rows = 64;
    options.publishers = std::move(publishers);
    auto opened = EngramTables::Open(options, clock_, metrics_);
    if (!opened.ok()) return opened.status();
    tables_ = *std::move(opened);
    return absl::OkStatus();
  }
  absl::Status Import() {
    return tables_->Import(model_, kModel, revision_, [&](uint64_t, uint64_t) { ++told_; });
  }
  void OpenAndImport(bool cold = false) {
    ASSERT_TRUE(Open(cold).ok());
    const absl::Status imported = Import();
    ASSERT_TRUE(imported.ok()) << imported;
  }

  std::string Current() const { return (*tables_->Find(Query()))->record.version; }
  VersionQuery Query(const std::string& version = "") const { return {kModel, revision_, version}; }
  /// An update of some rows of layer 3, all values `value`.
  absl::StatusOr<VersionRecord> Update(const std::string& base, float value,
                                       const std::vector<uint64_t>& ids = {0, 7, 1000}) {
    const std::vector<float> rows(ids.size() * 32, value);
    return tables_->Update(kMe, Query(base), 3, ids, std::as_bytes(std::span(rows)));
  }
  std::string Constant(float value, size_t rows) const {
    const std::vector<float> values(rows * 32, value);
    return {reinterpret_cast<const char*>(values.data()), values.size() * sizeof(float)};
  }
  std::string Segment(const std::string& version, uint32_t layer) const {
    return SegmentFolder(data_).PathOf(version, layer);
  }
  size_t AuditLines(const std::string& action, bool done = true) const {
    const auto entries = *tables_->ListAudit(1000);
    return static_cast<size_t>(std::count_if(
        entries.begin(), entries.end(),
        [&](const engram::v1::AuditEntry& e) { return e.action() == action && e.done() == done; }));
  }

  TempDir dir_;
  const std::string model_ = dir_ / "tiny";
  const std::string data_ = dir_ / "data";
  std::string revision_;
  int told_ = 0;
  base::ManualClock clock_;
  telemetry::Metrics metrics_{"engram_store"};
  std::unique_ptr<EngramTables> tables_;
};

TEST_F(EngramTablesTest, ServesTheCheckpointsRowsAndImportsOnce) {
  OpenAndImport();
  EXPECT_GE(told_, 9);
  const std::string version = Current();
  EXPECT_EQ(version.size(), 64u);
  for (const auto& [layer, rows] : {std::pair{1u, uint64_t{1650}}, {3u, uint64_t{1746}}}) {
    const std::vector<uint64_t> ids = SomeIds(rows);
    EXPECT_EQ(*Rows(*tables_, Query(), layer, ids), CheckpointRows(model_, layer, ids));
  }
  told_ = 0;
  OpenAndImport();
  EXPECT_EQ(told_, 0);
  EXPECT_EQ(Current(), version);
  EXPECT_EQ(AuditLines("import"), 1u);
  EXPECT_EQ(AuditLines("publish"), 1u);
}

TEST_F(EngramTablesTest, WithoutTheCheckpointsTablesNothingChanges) {
  OpenAndImport();
  const std::vector<uint64_t> ids = SomeIds(1650);
  const std::string before = *Rows(*tables_, Query(), 1, ids);
  EXPECT_GE(DeleteTableFiles(model_), 1u);
  EXPECT_EQ(RevisionOf(model_), revision_);
  for (const bool cold : {false, true}) {
    OpenAndImport(cold);
    EXPECT_EQ(*Rows(*tables_, Query(), 1, ids), before);
  }
  // A store that does not have them yet says what is missing.
  EngramTables::Options options;
  options.data_directory = dir_ / "other";
  const auto other = *EngramTables::Open(options, clock_, metrics_);
  const absl::Status import = other->Import(model_, kModel, revision_, [](uint64_t, uint64_t) {});
  EXPECT_EQ(ReasonOf(import), Reason::kBadCheckpoint);
  EXPECT_THAT(std::string(import.message()), HasSubstr("engram.embed.weight"));
}

TEST_F(EngramTablesTest, Fp8RowsHaveValuesAndScales) {
  const std::string fp8 = dir_ / "fp8";
  WriteMemoryModel(fp8, 1, true);
  for (const bool cold : {false, true}) {
    EngramTables::Options options;
    options.data_directory = dir_ / absl::StrCat("fp8-data-", cold);
    options.cold = cold;
    const auto tables = *EngramTables::Open(options, clock_, metrics_);
    const absl::Status imported = tables->Import(fp8, kModel, "r", [](uint64_t, uint64_t) {});
    ASSERT_TRUE(imported.ok()) << imported;
    EXPECT_EQ((*tables->Find({kModel, "r", ""}))->record.shape.row_bytes(), 33u);
    const std::vector<uint64_t> ids = SomeIds(1746);
    EXPECT_EQ(*Rows(*tables, {kModel, "r", ""}, 3, ids), CheckpointRows(fp8, 3, ids));
  }
}

TEST_F(EngramTablesTest, TheAddressIsThatOfTheContent) {
  OpenAndImport();
  const std::string first = Current();
  const std::string old_row = *Rows(*tables_, Query(), 3, {7});
  const auto changed = Update(first, 0.5f, {7});
  ASSERT_TRUE(changed.ok()) << changed.status();
  EXPECT_NE(changed->version, first);
  // Another way to the same content.
  const auto detour = Update(Update(first, 0.25f, {9})->version, 0.5f, {7});
  const std::string row9 = *Rows(*tables_, Query(), 3, {9});
  const auto back = tables_->Update(kMe, Query(detour->version), 3, std::vector<uint64_t>{9},
                                    std::as_bytes(std::span(row9.data(), row9.size())));
  EXPECT_EQ(back->version, changed->version);
  // And back to the import.
  const auto undone = tables_->Update(kMe, Query(changed->version), 3, std::vector<uint64_t>{7},
                                      std::as_bytes(std::span(old_row.data(), old_row.size())));
  EXPECT_EQ(undone->version, first);
  // Another store with the same tables agrees, another model does not.
  EngramTables::Options options;
  options.data_directory = dir_ / "other";
  const auto other = *EngramTables::Open(options, clock_, metrics_);
  ASSERT_TRUE(other->Import(model_, kModel, revision_, [](uint64_t, uint64_t) {}).ok());
  EXPECT_EQ((*other->Find(Query()))->record.version, first);
  const std::string second = dir_ / "second";
  WriteMemoryModel(second, 2);
  ASSERT_TRUE(other->Import(second, kModel, "r2", [](uint64_t, uint64_t) {}).ok());
  EXPECT_NE((*other->Find({kModel, "r2", ""}))->record.version, first);
}

TEST_F(EngramTablesTest, ADraftIsServedOncePublishedAndRolledBack) {
  for (const bool cold : {false, true}) {
    fs::remove_all(data_);
    OpenAndImport(cold);
    const std::string first = Current();
    const std::vector<uint64_t> ids = {0, 7, 1000};
    const std::string old_rows = *Rows(*tables_, Query(), 3, ids);
    const VersionRecord draft = *Update("", 0.5f);
    EXPECT_EQ(ReasonOf(Rows(*tables_, Query(draft.version), 3, ids).status()),
              Reason::kEngramVersionNotFound);
    EXPECT_EQ(Current(), first);
    ASSERT_TRUE(tables_->Publish(kMe, Query(draft.version)).ok());
    EXPECT_EQ(Current(), draft.version);
    for (int round = 0; round < 2; ++round) {
      EXPECT_EQ(*Rows(*tables_, Query(), 3, ids), Constant(0.5f, ids.size()));
      EXPECT_EQ(*Rows(*tables_, Query(first), 3, ids), old_rows);
      EXPECT_EQ(*Rows(*tables_, Query(), 1, {5}), CheckpointRows(model_, 1, {5}));
      EXPECT_EQ(*Rows(*tables_, Query(), 3, {8, 999}), CheckpointRows(model_, 3, {8, 999}));
      ASSERT_TRUE(Open(cold).ok());  // and after a restart
    }
    ASSERT_TRUE(tables_->Rollback(kMe, Query()).ok());
    EXPECT_EQ(Current(), first);
    EXPECT_EQ(*Rows(*tables_, Query(), 3, ids), old_rows);
    ASSERT_TRUE(Open(cold).ok());
    EXPECT_EQ(Current(), first);
    ASSERT_TRUE(tables_->Rollback(kMe, Query(draft.version)).ok());
    EXPECT_EQ(Current(), draft.version);
    EXPECT_EQ(AuditLines("rollback"), 2u);
  }
}

TEST_F(EngramTablesTest, WhatCannotBeDoneIsRefusedAndChangesNothing) {
  OpenAndImport();
  const std::string first = Current();
  EXPECT_EQ(ReasonOf(Rows(*tables_, {"huge", "", ""}, 1, {0}).status()), Reason::kModelHasNoMemory);
  EXPECT_EQ(ReasonOf(Rows(*tables_, Query(std::string(64, 'a')), 1, {0}).status()),
            Reason::kEngramVersionNotFound);
  const auto update = [&](uint32_t layer, std::vector<uint64_t> ids, size_t columns, float value) {
    const std::vector<float> rows(ids.size() * columns, value);
    return ReasonOf(
        tables_->Update(kMe, Query(), layer, ids, std::as_bytes(std::span(rows))).status());
  };
  EXPECT_EQ(update(2, {0}, 32, 1), Reason::kEngramRowNotFound);
  EXPECT_EQ(update(3, {1746}, 32, 1), Reason::kEngramRowNotFound);
  EXPECT_EQ(update(3, {0}, 31, 1), Reason::kInvalidArgument);
  EXPECT_EQ(update(3, {0}, 64, 1), Reason::kInvalidArgument);
  EXPECT_EQ(update(3, {4, 4}, 32, 1), Reason::kInvalidArgument);
  EXPECT_EQ(update(3, {}, 32, 1), Reason::kInvalidArgument);
  EXPECT_EQ(update(3, {0}, 32, NAN), Reason::kInvalidArgument);
  EXPECT_EQ(ReasonOf(Update(std::string(64, 'b'), 1).status()), Reason::kEngramVersionNotFound);
  EXPECT_EQ(ReasonOf(tables_->Publish(kMe, Query(std::string(64, 'b'))).status()),
            Reason::kEngramVersionNotFound);
  EXPECT_EQ(ReasonOf(tables_->Publish(kMe, Query("")).status()), Reason::kInvalidArgument);
  EXPECT_EQ(ReasonOf(tables_->Rollback(kMe, Query()).status()), Reason::kEngramVersionNotFound);
  EXPECT_EQ(AuditLines("update", false), 8u);
  EXPECT_EQ(tables_->List("", "", true).size(), 1u);
  EXPECT_EQ(Current(), first);

  ASSERT_TRUE(Open(false, {"ops", "ci"}).ok());
  EXPECT_EQ(ReasonOf(Update("", 1).status()), Reason::kPermissionDenied);
  EXPECT_EQ(ReasonOf(tables_->Publish(kMe, Query(first)).status()), Reason::kPermissionDenied);
  EXPECT_EQ(ReasonOf(tables_->Rollback(kMe, Query()).status()), Reason::kPermissionDenied);
  EXPECT_EQ(ReasonOf(tables_->Prune(kMe, Query(), 1, true, true).status()),
            Reason::kPermissionDenied);
  EXPECT_TRUE(tables_->Publish({"t", "ci"}, Query(first)).ok());
  const auto audit = *tables_->ListAudit(1);
  EXPECT_EQ(audit[0].principal(), "ci");
}

TEST_F(EngramTablesTest, PruneKeepsTheLastThreeAndWhatIsLeased) {
  OpenAndImport();
  const std::string first = Current();
  const auto lease = tables_->Acquire(Query(), kLeaseMax);
  ASSERT_TRUE(lease.ok());
  std::vector<std::string> versions = {first};
  for (int i = 1; i <= 5; ++i) {
    versions.push_back(Update("", static_cast<float>(i))->version);
    ASSERT_TRUE(tables_->Publish(kMe, Query(versions.back())).ok());
  }
  // Just started: who holds what is not known yet.
  EXPECT_EQ(tables_->List("", "", true).size(), 6u);
  EXPECT_EQ(ReasonOf(tables_->Prune(kMe, Query(), 0, false, false).status()), Reason::kNotReady);
  clock_.Advance(kLeaseMax - base::Micros(1));
  ASSERT_TRUE(tables_->Renew(lease->number));
  clock_.Advance(base::Micros(1));
  const auto gone = tables_->Prune(kMe, Query(), 0, false, false);
  EXPECT_THAT(*gone, testing::UnorderedElementsAre(versions[1], versions[2]));
  EXPECT_EQ(*Rows(*tables_, Query(first), 3, {0}), CheckpointRows(model_, 3, {0}));
  EXPECT_FALSE(fs::exists(Segment(versions[1], 3)));
  EXPECT_EQ(ReasonOf(Rows(*tables_, Query(versions[1]), 3, {0}).status()),
            Reason::kEngramVersionNotFound);
  // The lease ends: the import goes too, but not the rows that its heirs still have of it.
  tables_->Release(lease->number);
  EXPECT_FALSE(tables_->Renew(lease->number));
  EXPECT_THAT(*tables_->Prune(kMe, Query(), 1, false, false),
              testing::UnorderedElementsAre(first, versions[3], versions[4]));
  for (const bool cold : {false, true}) {
    fs::remove_all(data_ + "/segments");  // all comes from the record
    ASSERT_TRUE(Open(cold).ok());
    EXPECT_EQ(*Rows(*tables_, Query(), 3, {0, 7, 1000}), Constant(5, 3));
    EXPECT_EQ(*Rows(*tables_, Query(), 3, {1, 8}), CheckpointRows(model_, 3, {1, 8}));
  }
  // Publishing prunes by itself once the store has stood for a while.
  clock_.Advance(kLeaseMax);
  for (int i = 6; i <= 9; ++i) {
    ASSERT_TRUE(tables_->Publish(kMe, Query(Update("", static_cast<float>(i))->version)).ok());
  }
  EXPECT_EQ(tables_->List("", "", false).size(), 3u);
}

TEST_F(EngramTablesTest, AFlippedBitIsNeverARow) {
  OpenAndImport();
  const std::string version = Current();
  const std::vector<uint64_t> ids = SomeIds(1746);
  const std::string path = Segment(version, 3);
  const std::string good = ReadFile(path);
  constexpr size_t kRecord = 32 * 4 + 4;
  for (const size_t bit : {size_t{0}, size_t{300}, kRecord * 8 - 1}) {  // first and last of row 7
    std::string bad = good;
    bad[model::kSegmentHeaderBytes + 7 * kRecord + bit / 8] ^= static_cast<char>(1 << bit % 8);
    WriteFile(path, bad);
    ASSERT_TRUE(Open().ok());
    const absl::Status read = Rows(*tables_, Query(), 3, {6, 7, 8}).status();
    EXPECT_EQ(ReasonOf(read), Reason::kEngramChecksum);
    EXPECT_THAT(std::string(read.message()), HasSubstr("layer 3, row 7 "));
    EXPECT_EQ(*Rows(*tables_, Query(), 3, {6, 8}), CheckpointRows(model_, 3, {6, 8}));
  }
  // Two rows in each other's place are whole, but wrong.
  std::string swapped = good;
  std::swap_ranges(swapped.begin() + model::kSegmentHeaderBytes,
                   swapped.begin() + model::kSegmentHeaderBytes + kRecord,
                   swapped.begin() + model::kSegmentHeaderBytes + kRecord);
  WriteFile(path, swapped);
  ASSERT_TRUE(Open().ok());
  EXPECT_EQ(ReasonOf(Rows(*tables_, Query(), 3, {0}).status()), Reason::kEngramChecksum);
  // A header or a size that is not right: written again from the record.
  for (const std::string& bad :
       {good.substr(0, good.size() - 1), good + "x", std::string("nothing"),
        std::string(good).replace(20, 1, "?"), std::string(good).replace(4095, 1, "?")}) {
    WriteFile(path, bad);
    ASSERT_TRUE(Open().ok());
    EXPECT_EQ(*Rows(*tables_, Query(), 3, ids), CheckpointRows(model_, 3, ids));
    EXPECT_TRUE(ReadFile(path) == good);
  }
}

TEST_F(EngramTablesTest, LeftoversOfAStoppedWriterGo) {
  OpenAndImport();
  const std::string version = Current();
  tables_.reset();
  for (const std::string& folder : {data_ + "/import.partial-7", data_ + "/segments/x.partial-7",
                                    data_ + "/segments/" + std::string(64, 'e')}) {
    fs::create_directories(folder);
    WriteFile(folder + "/file", "x");
  }
  fs::remove(Segment(version, 1));
  ASSERT_TRUE(Open().ok());
  for (const auto& entry : fs::recursive_directory_iterator(data_)) {
    const std::string name = entry.path().filename();
    EXPECT_EQ(name.find("partial"), std::string::npos) << name;
    EXPECT_NE(name, std::string(64, 'e'));
  }
  EXPECT_EQ(*Rows(*tables_, Query(), 1, {9}), CheckpointRows(model_, 1, {9}));
}

/// No file of this process may grow beyond `bytes`: what a full disk does to a write.
class FileSizeLimit {
 public:
  explicit FileSizeLimit(rlim_t bytes) {
    std::signal(SIGXFSZ, SIG_IGN);
    getrlimit(RLIMIT_FSIZE, &before_);
    const rlimit limit{bytes, before_.rlim_max};
    setrlimit(RLIMIT_FSIZE, &limit);
  }
  ~FileSizeLimit() { setrlimit(RLIMIT_FSIZE, &before_); }

 private:
  rlimit before_{};
};

TEST_F(EngramTablesTest, AFullDiskLeavesTheOldVersionServing) {
  OpenAndImport();
  const std::string first = Current();
  const std::vector<uint64_t> ids = SomeIds(1746);
  const VersionRecord draft = *Update("", 0.5f);
  for (const rlim_t bytes : {rlim_t{0}, rlim_t{5000}, rlim_t{200'000}}) {
    absl::Status published;
    {
      const FileSizeLimit full(bytes);
      published = tables_->Publish(kMe, Query(draft.version)).status();
    }
    EXPECT_EQ(ReasonOf(published), Reason::kDiskFull) << published;
    EXPECT_THAT(std::string(published.message()),
                HasSubstr(absl::StrCat(" needs ", (1650 + 1746) * 132 + 2 * 4096, " bytes in ")));
    EXPECT_EQ(Current(), first);
    EXPECT_EQ(*Rows(*tables_, Query(), 3, ids), CheckpointRows(model_, 3, ids));
    EXPECT_FALSE(fs::exists(data_ + "/segments/" + draft.version));
  }
  const absl::Status again = tables_->Publish(kMe, Query(draft.version)).status();
  ASSERT_TRUE(again.ok()) << again;
  EXPECT_EQ(Current(), draft.version);
  EXPECT_EQ(std::distance(fs::directory_iterator(data_ + "/segments"), {}), 2);
}

TEST_F(EngramTablesTest, AFullDiskStopsAnImportAndLeavesNothing) {
  ASSERT_TRUE(Open().ok());
  absl::Status imported;
  {
    const FileSizeLimit full(100'000);
    imported = Import();
  }
  EXPECT_EQ(ReasonOf(imported), Reason::kDiskFull) << imported;
  EXPECT_THAT(std::string(imported.message()), HasSubstr(" bytes in " + data_));
  EXPECT_EQ(tables_->List("", "", true).size(), 0u);
  ASSERT_TRUE(Open().ok());
  ASSERT_TRUE(Import().ok());
  EXPECT_EQ(*Rows(*tables_, Query(), 1, {3}), CheckpointRows(model_, 1, {3}));
}

}  // namespace
}  // namespace expertmesh::engram_store

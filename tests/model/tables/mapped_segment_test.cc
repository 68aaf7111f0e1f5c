#include "model/tables/mapped_segment.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "model/tables/row_record.h"
#include "services/base/status.h"
#include "tests/support/temp_dir.h"

namespace expertmesh::model {
namespace {

using base::Reason;
using base::ReasonOf;

constexpr SegmentHeader kHeader{{7}, 3, RowFormat::kBf16, 6, 50};
constexpr size_t kRecord = 16;

std::vector<std::byte> RowOf(uint64_t row) {
  std::vector<std::byte> bytes(kRecord - kChecksumBytes);
  for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<std::byte>(row * 31 + i);
  return bytes;
}

std::string SegmentBytes() {
  const auto header = WriteSegmentHeader(kHeader);
  std::vector<std::byte> file(header.begin(), header.end());
  file.resize(kSegmentHeaderBytes + kHeader.rows * kRecord);
  for (uint64_t row = 0; row < kHeader.rows; ++row) {
    WriteRecord(kHeader.layer, row, RowOf(row),
                std::span(file).subspan(kSegmentHeaderBytes + row * kRecord, kRecord));
  }
  return {reinterpret_cast<const char*>(file.data()), file.size()};
}

std::vector<std::byte> ReadRows(const MappedSegment& segment, const std::vector<uint64_t>& ids,
                                size_t count, const std::vector<size_t>& damaged) {
  std::vector<std::byte> rows(count * segment.row_bytes());
  std::vector<size_t> found;
  segment.Read(ids, count, rows.data(), found);
  EXPECT_EQ(found, damaged);
  return rows;
}

TEST(MappedSegmentTest, EveryRowIsThereAndNoOther) {
  const test_support::TempDir dir;
  test_support::WriteFile(dir / "a.seg", SegmentBytes());
  const auto segment = MappedSegment::Open(dir / "a.seg");
  ASSERT_TRUE(segment.ok()) << segment.status();
  EXPECT_EQ((*segment)->header(), kHeader);
  ASSERT_EQ((*segment)->row_bytes(), kRecord - kChecksumBytes);
  std::filesystem::remove(dir / "a.seg");  // the mapping needs no name
  std::vector<uint64_t> ids;
  for (uint64_t id = 0; id < kHeader.rows; ++id) ids.push_back((id * 7 + 3) % kHeader.rows);
  ids[40] = kHeader.rows;
  ids[41] = uint64_t{1} << 40;
  ids[49] = UINT64_MAX;
  const size_t row_bytes = (*segment)->row_bytes();
  for (const size_t count :
       {size_t{0}, size_t{1}, size_t{31}, size_t{32}, size_t{33}, size_t{40}}) {
    const std::vector<std::byte> rows = ReadRows(**segment, ids, count, {});
    for (size_t i = 0; i < count; ++i) {
      EXPECT_EQ(std::vector(rows.begin() + i * row_bytes, rows.begin() + (i + 1) * row_bytes),
                RowOf(ids[i]));
    }
  }
  ReadRows(**segment, ids, ids.size(), {40, 41, 49});
}

TEST(MappedSegmentTest, ADamagedRowIsSeenAndItsNeighboursAreNot) {
  const test_support::TempDir dir;
  const std::string good = SegmentBytes();
  for (size_t at = 0; at < kRecord; ++at) {
    std::string bad = good;
    bad[kSegmentHeaderBytes + 20 * kRecord + at] ^= 1;
    test_support::WriteFile(dir / "a.seg", bad);
    const auto segment = *MappedSegment::Open(dir / "a.seg");
    ReadRows(*segment, {19, 20, 21, 20}, 4, {1, 3});
  }
}

TEST(MappedSegmentTest, WhatIsNoSegmentIsRefused) {
  const test_support::TempDir dir;
  EXPECT_EQ(ReasonOf(MappedSegment::Open(dir / "none").status()), Reason::kBadCheckpoint);
  EXPECT_EQ(ReasonOf(MappedSegment::Open(dir.path()).status()), Reason::kBadCheckpoint);
  const std::string good = SegmentBytes();
  for (const size_t bytes : {size_t{1}, kSegmentHeaderBytes, good.size() - 1}) {
    test_support::WriteFile(dir / "short.seg", good.substr(0, bytes));
    EXPECT_EQ(ReasonOf(MappedSegment::Open(dir / "short.seg").status()), Reason::kInvalidArgument);
  }
}

}  // namespace
}  // namespace expertmesh::model

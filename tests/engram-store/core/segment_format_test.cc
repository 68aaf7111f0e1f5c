#include "model/tables/segment_format.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>

#include "engram-store/core/version_id.h"
#include "model/tables/row_record.h"
#include "services/base/crc32c.h"
#include "services/base/status.h"

namespace expertmesh::engram_store {
namespace {

using base::Reason;
using base::ReasonOf;

TEST(TableShapeTest, SizesFollowFromFormatAndWidth) {
  const TableShape v41{RowFormat::kE4m3E8m0, 256, {{1, 384006168}, {14, 384016682}}};
  ASSERT_TRUE(v41.Check().ok());
  EXPECT_EQ(v41.row_bytes(), 264u);
  EXPECT_EQ(v41.record_bytes(), 268u);
  EXPECT_EQ(v41.rows_per_block(), 8u);
  EXPECT_EQ(v41.total_rows(), 768022850u);
  EXPECT_EQ(v41.blocks(v41.layers[0]), 48000771u);
  EXPECT_EQ(v41.Find(14)->rows, 384016682u);
  EXPECT_EQ(v41.Find(2), nullptr);
  const TableShape odd{RowFormat::kE4m3E8m0, 33, {{0, 100}}};
  EXPECT_EQ(odd.row_bytes(), 35u);
  EXPECT_EQ(odd.rows_per_block(), 64u);
  EXPECT_EQ(odd.rows_of_block(odd.layers[0], 1), 36u);
  EXPECT_EQ((TableShape{RowFormat::kF32, 4096, {}}.rows_per_block()), 1u);
  EXPECT_EQ((TableShape{RowFormat::kBf16, 3, {}}.row_bytes()), 6u);
}

TEST(TableShapeTest, NonsenseIsRefused) {
  for (const TableShape& bad :
       {TableShape{static_cast<RowFormat>(0), 1, {}}, TableShape{static_cast<RowFormat>(4), 1, {}},
        TableShape{RowFormat::kF32, 0, {}}, TableShape{RowFormat::kF32, kWidthMax + 1, {}},
        TableShape{RowFormat::kF32, 1, {{2, 1}, {2, 1}}}, TableShape{RowFormat::kF32, 1, {{2, 0}}},
        TableShape{RowFormat::kF32, 1, {{2, kRowsMax + 1}}}}) {
    EXPECT_EQ(ReasonOf(bad.Check()), Reason::kInvalidArgument);
  }
}

TEST(RowRecordTest, EveryBitAndThePlaceCount) {
  std::vector<std::byte> row(20, std::byte{7});
  std::vector<std::byte> record(24);
  WriteRecord(3, 1000, row, record);
  EXPECT_TRUE(IsIntact(3, 1000, record));
  EXPECT_FALSE(IsIntact(3, 1001, record));
  EXPECT_FALSE(IsIntact(2, 1000, record));
  for (size_t bit = 0; bit < record.size() * 8; ++bit) {
    std::vector<std::byte> bad = record;
    bad[bit / 8] ^= std::byte{1} << bit % 8;
    EXPECT_FALSE(IsIntact(3, 1000, bad)) << bit;
  }
}

// The page, byte for byte.
TEST(SegmentFormatTest, HeaderIsWhatThePageSays) {
  SegmentHeader header{{}, 14, RowFormat::kE4m3E8m0, 256, 5};
  header.version[0] = 0xAB;
  const auto bytes = WriteSegmentHeader(header);
  EXPECT_EQ(std::memcmp(bytes.data(), "EMENGSEG\1\0\0\0\0\x10\0\0\xAB\0", 18), 0);
  EXPECT_EQ(std::memcmp(bytes.data() + 48, "\x0E\0\0\0\3\0\0\0\0\1\0\0\x0C\1\0\0\5\0\0\0", 20), 0);
  EXPECT_EQ(std::memcmp(bytes.data() + 72, "\x3C\5\0\0\0\0\0\0\0", 9), 0);
  std::vector<std::byte> file(bytes.begin(), bytes.end());
  file.resize(kSegmentHeaderBytes + 5 * 268, std::byte{9});
  const auto parsed = ParseSegmentHeader(file);
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  EXPECT_EQ(*parsed, header);
  EXPECT_EQ(SegmentRecord(*parsed, file, 4).data(), file.data() + 4096 + 4 * 268);
  EXPECT_EQ(SegmentRecord(*parsed, file, 4).size(), 268u);
  EXPECT_TRUE(SegmentRecord(*parsed, file, 5).empty());
}

TEST(SegmentFormatTest, EveryChangedByteOfTheHeaderIsSeen) {
  const auto good = WriteSegmentHeader({{}, 1, RowFormat::kF32, 1, 1});
  for (size_t at = 0; at < good.size(); ++at) {
    std::vector<std::byte> file(good.begin(), good.end());
    file.resize(kSegmentHeaderBytes + 8);
    file[at] ^= std::byte{0x10};
    EXPECT_FALSE(ParseSegmentHeader(file).ok()) << at;
  }
}

TEST(SegmentFormatTest, SizesThatContradictAreRefusedAlsoWithARightChecksum) {
  const auto good = WriteSegmentHeader({{}, 1, RowFormat::kF32, 1, 1});
  for (const size_t at : {size_t{8}, size_t{12}, size_t{52}, size_t{56}, size_t{60}, size_t{64},
                          size_t{71}, size_t{72}}) {
    std::vector<std::byte> file(good.begin(), good.end());
    file.resize(kSegmentHeaderBytes + 8);
    file[at] ^= std::byte{0x40};
    const uint32_t crc = base::Crc32c(std::span<const std::byte>(file).first(4092));
    std::memcpy(file.data() + 4092, &crc, sizeof(crc));
    EXPECT_EQ(ReasonOf(ParseSegmentHeader(file).status()), Reason::kInvalidArgument) << at;
  }
  EXPECT_FALSE(ParseSegmentHeader(good).ok());  // no rows behind it
  EXPECT_FALSE(ParseSegmentHeader({}).ok());
}

TEST(VersionIdTest, TheSumKnowsNoOrderAndTakesBack) {
  const std::vector<std::byte> a(10, std::byte{1});
  const std::vector<std::byte> b(10, std::byte{2});
  ContentSum one;
  one.Add(1, 0, a);
  one.Add(1, 1, b);
  ContentSum other;
  other.Add(1, 1, b);
  other.Add(1, 0, a);
  EXPECT_EQ(one.bytes(), other.bytes());
  other.Subtract(1, 1, b);
  EXPECT_NE(one.bytes(), other.bytes());
  other.Subtract(1, 0, a);
  EXPECT_EQ(other.bytes(), ContentSum().bytes());
  for (int i = 0; i < 100; ++i) other.Subtract(1, 5, a);  // wraps around, and comes back
  EXPECT_NE(other.bytes(), ContentSum().bytes());
  for (int i = 0; i < 100; ++i) other.Add(1, 5, a);
  EXPECT_EQ(ContentSum(other.bytes()).bytes(), ContentSum().bytes());
  ContentSum swapped;
  swapped.Add(1, 1, a);
  swapped.Add(1, 0, b);
  EXPECT_NE(swapped.bytes(), one.bytes());

  const TableShape shape{RowFormat::kF32, 2, {{1, 5}}};
  const TableShape wider{RowFormat::kF32, 3, {{1, 5}}};
  EXPECT_NE(VersionOf(shape, one), VersionOf(wider, one));
  EXPECT_NE(VersionOf(shape, one), VersionOf(shape, swapped));
  const std::string name = VersionName(VersionOf(shape, one));
  EXPECT_EQ(VersionFromName(name), VersionOf(shape, one));
  EXPECT_EQ(VersionFromName("nothing"), VersionBytes{});
}

}  // namespace
}  // namespace expertmesh::engram_store

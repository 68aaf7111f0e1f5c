#include "services/base/hash.h"

#include <gtest/gtest.h>

#include <vector>

#include "services/base/crc32c.h"
#include "services/base/random.h"

namespace expertmesh::base {
namespace {

std::span<const std::byte> Bytes(std::string_view text) { return std::as_bytes(std::span(text)); }

TEST(Crc32c, KnownAnswers) {
  EXPECT_EQ(Crc32c(Bytes("123456789")), 0xE3069283u);
  EXPECT_EQ(Crc32cPortable(Bytes("123456789")), 0xE3069283u);
  EXPECT_EQ(Crc32c({}), 0u);
  // RFC 3720, appendix B.4.
  EXPECT_EQ(Crc32c(std::vector<std::byte>(32, std::byte{0})), 0x8A9136AAu);
  EXPECT_EQ(Crc32c(std::vector<std::byte>(32, std::byte{0xFF})), 0x62A8AB43u);
}

TEST(Crc32c, TableAndInstructionAgreeAtEveryLengthAndOffset) {
  std::vector<std::byte> bytes(600);
  for (size_t i = 0; i < bytes.size(); ++i) {
    bytes[i] = static_cast<std::byte>(Philox({7, 7}, {static_cast<uint32_t>(i), 0, 0, 0})[0]);
  }
  const std::span<const std::byte> all(bytes);
  for (size_t offset = 0; offset < 9; ++offset) {
    for (size_t size = 0; size + offset <= bytes.size(); ++size) {
      const auto part = all.subspan(offset, size);
      ASSERT_EQ(Crc32c(part), Crc32cPortable(part)) << offset << " " << size;
    }
  }
}

TEST(Crc32c, TableAndInstructionAgreeAroundItsLongStrides) {
  std::vector<std::byte> bytes(30000);
  for (size_t i = 0; i < bytes.size(); ++i) {
    bytes[i] = static_cast<std::byte>(Philox({8, 8}, {static_cast<uint32_t>(i), 0, 0, 0})[0]);
  }
  const std::span<const std::byte> all(bytes);
  for (const size_t size : {2047, 6143, 6144, 6145, 12287, 12288, 12300, 18432, 29991}) {
    for (const uint32_t start : {0u, 0xDEADBEEFu}) {
      const auto part = all.subspan(size % 9, size);
      EXPECT_EQ(Crc32c(part, start), Crc32cPortable(part, start)) << size;
    }
  }
}

TEST(Crc32c, ContinuesAnEarlierRun) {
  const std::string_view text = "the payload of a frame, in two parts";
  for (size_t cut = 0; cut <= text.size(); ++cut) {
    const uint32_t first = Crc32c(Bytes(text.substr(0, cut)));
    EXPECT_EQ(Crc32c(Bytes(text.substr(cut)), first), Crc32c(Bytes(text)));
    EXPECT_EQ(Crc32cPortable(Bytes(text.substr(cut)), first), Crc32c(Bytes(text)));
  }
}

TEST(Sha256, KnownAnswers) {
  Sha256 empty;
  EXPECT_EQ(Hex(empty.Finish()),
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  Sha256 abc;
  abc.Update("a");
  abc.Update(Bytes("bc"));
  EXPECT_EQ(Hex(abc.Finish()), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
}

TEST(Sha256, Hash64IsTheFirstEightBytesLittleEndian) {
  EXPECT_EQ(Hash64("abc"), 0xEACF018FBF1678BAu);
  EXPECT_EQ(Hash64(Bytes("abc")), Hash64("abc"));
}

}  // namespace
}  // namespace expertmesh::base

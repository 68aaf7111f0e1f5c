// Files of packed weights: the next start takes them and gives the same bits; anything that is not
// just this model's is built anew.
#include "model/packed_cache.h"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <utility>

#include "model/kernels/kernel_table.h"
#include "model/local_experts.h"
#include "model/packed_header.h"
#include "model/writer/converter.h"
#include "services/base/status.h"
#include "tests/support/model_runner.h"
#include "tests/support/temp_dir.h"
#include "tests/support/tiny_checkpoint.h"

namespace expertmesh::model {
namespace {

std::string ReadAll(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

void WriteAll(const std::string& path, const std::string& bytes) {
  std::ofstream(path, std::ios::binary | std::ios::trunc) << bytes;
}

ino_t InodeOf(const std::string& path) {
  struct stat info = {};
  EXPECT_EQ(stat(path.c_str(), &info), 0) << path;
  return info.st_ino;
}

class PackedCacheTest : public testing::TestWithParam<std::string> {
 protected:
  PackedCacheTest() {
    test_support::WriteTinyModel(dir_ / "float", test_support::AwkwardConfig());
    model_ = dir_ / "float";
    profile_ = GetParam();
    if (GetParam() == "int4") Convert(TargetFormat::kInt4, "int8");
    if (GetParam() == "fp8") Convert(TargetFormat::kFp8Block128, "bf16");
    attention_ = model_ + "/expertmesh-packed-" + profile_ + "-attention.bin";
    experts_ = model_ + "/expertmesh-packed-" + profile_ + "-experts-0-23.bin";
  }

  // The model in that form, in which the profile keeps it.
  void Convert(TargetFormat format, const std::string& profile) {
    ConvertOptions convert;
    convert.from = std::exchange(model_, dir_ / GetParam());
    convert.to = model_;
    convert.format = format;
    EXPECT_TRUE(ConvertModel(convert).ok());
    profile_ = profile;
  }

  std::vector<test_support::LaneTrace> Run(uint64_t bytes_min = 0) const {
    AttentionModel::Options attention;
    attention.directory = model_;
    attention.profile = profile_;
    attention.packed_file_bytes_min = bytes_min;
    ExpertSlice::Options experts;
    experts.directory = model_;
    experts.profile = profile_;
    experts.experts = {{0, 24}};
    experts.packed_file_bytes_min = bytes_min;
    const auto model = AttentionModel::Load(attention);
    const auto slice = ExpertSlice::Load(experts);
    EXPECT_TRUE(model.ok()) << model.status();
    EXPECT_TRUE(slice.ok()) << slice.status();
    base::ThreadPool pool(1);
    LocalExperts local(**slice, pool);
    const std::vector<std::vector<uint32_t>> lanes = {
        test_support::RandomTokens((*model)->config(), 40, 3)};
    return test_support::RunLanes(**model, local, pool, lanes, std::vector<size_t>{16});
  }

  test_support::TempDir dir_;
  std::string model_;
  std::string profile_;
  std::string attention_;
  std::string experts_;
};

INSTANTIATE_TEST_SUITE_P(Profiles, PackedCacheTest,
                         testing::Values("exact-f32", "bf16", "int8", "int4", "fp8"),
                         [](const auto& info) {
                           return info.param == "exact-f32" ? "ExactF32" : info.param;
                         });

TEST_P(PackedCacheTest, TheNextStartTakesTheFilesAndGivesTheSameBits) {
  const auto expected = Run(kPackedFileBytesMin);
  EXPECT_FALSE(std::filesystem::exists(attention_)) << "too small to be worth a file";
  EXPECT_EQ(Run(), expected);
  const ino_t attention = InodeOf(attention_);
  const ino_t experts = InodeOf(experts_);
  EXPECT_EQ(Run(), expected);
  EXPECT_EQ(InodeOf(attention_), attention) << "written again";
  EXPECT_EQ(InodeOf(experts_), experts) << "written again";
}

TEST_P(PackedCacheTest, WhatIsDamagedOrForeignIsBuiltAnew) {
  const auto expected = Run();
  for (const std::string& path : {attention_, experts_}) {
    const std::string good = ReadAll(path);
    const auto spoilt = [&](size_t at) {
      std::string bytes = good;
      bytes[at] = static_cast<char>(bytes[at] ^ 0x10);
      return bytes;
    };
    std::string foreign = good;  // right by itself, of another revision
    auto header = *ParsePackedHeader(std::as_bytes(std::span(good)), good.size());
    header.key[9] = header.key[9] == 'a' ? 'b' : 'a';
    const std::string head = WritePackedHeader(header);
    foreign.replace(0, head.size(), head);
    for (const std::string& bad : {spoilt(0), spoilt(8), spoilt(40), spoilt(kPackedAlign),
                                   spoilt(good.size() - 1), good.substr(0, good.size() - 64),
                                   good.substr(0, 20), good + "x", std::string(), foreign}) {
      WriteAll(path, bad);
      ASSERT_EQ(Run(), expected);
      ASSERT_EQ(ReadAll(path), good) << "mended";
    }
  }
}

TEST_P(PackedCacheTest, AFileOfAnotherOrderIsNotTaken) {
  const auto expected = Run();
  const std::string good = ReadAll(attention_);
  // The checksums hold, but a piece is missing at the end.
  const auto header = *ParsePackedHeader(std::as_bytes(std::span(good)), good.size());
  const size_t bytes = header.weight_bytes - 64;
  std::filesystem::remove(attention_);
  const std::string key = header.key;
  const auto field = [&](std::string_view name) {
    const size_t at = key.find(name) + name.size() + 1;
    return key.substr(at, key.find('\n', at) - at);
  };
  const PackedKey same{model_, field("revision"), field("profile"), field("part")};
  ASSERT_EQ(same.Text(), key);
  WeightArena other;
  ASSERT_TRUE(LoadPacked(same, other, [&](PackedWeights*) {
                std::memset(other.Allocate(bytes), 7, bytes);
                return absl::OkStatus();
              }).ok());
  ASSERT_TRUE(std::filesystem::exists(attention_));
  EXPECT_EQ(Run(), expected);
  EXPECT_EQ(ReadAll(attention_), good);
}

TEST_P(PackedCacheTest, ADirectoryThatCannotBeWrittenCostsTimeOnly) {
  const auto expected = Run(kPackedFileBytesMin);
  std::filesystem::create_directory(attention_);  // also root cannot put a file there
  EXPECT_EQ(Run(), expected);
  EXPECT_EQ(Run(), expected);
  for (const auto& entry : std::filesystem::directory_iterator(model_)) {
    EXPECT_EQ(entry.path().extension() == ".tmp", false) << entry.path();
  }
}

TEST(PackedHeader, ReadsWhatItWrote) {
  const PackedHeader header{"key", kPackedChunkBytes + uint64_t{64}, {1, 2}};
  const std::string text = WritePackedHeader(header);
  EXPECT_EQ(text.size() % kPackedAlign, 0u);
  const uint64_t file_bytes = text.size() + header.weight_bytes;
  const auto bytes = std::as_bytes(std::span(text));
  EXPECT_EQ(*PackedHeaderBytes(bytes.first(kPackedPrefixBytes), file_bytes), text.size());
  const auto again = ParsePackedHeader(bytes, file_bytes);
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_EQ(again->key, header.key);
  EXPECT_EQ(again->weight_bytes, header.weight_bytes);
  EXPECT_EQ(again->checksums, header.checksums);
  EXPECT_EQ(base::ReasonOf(ParsePackedHeader(bytes, file_bytes + 1).status()),
            base::Reason::kBadCheckpoint);
  EXPECT_EQ(base::ReasonOf(ParsePackedHeader(bytes.first(40), file_bytes).status()),
            base::Reason::kBadCheckpoint);
}

TEST(PackedHeader, ReadsOneWithoutWeights) {  // found by the fuzzer
  const std::string text = WritePackedHeader({"key", 0, {}});
  const auto again = ParsePackedHeader(std::as_bytes(std::span(text)), text.size());
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_TRUE(again->checksums.empty());
}

}  // namespace
}  // namespace expertmesh::model

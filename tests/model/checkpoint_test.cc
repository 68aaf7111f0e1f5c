#include "model/checkpoint.h"

#include <gtest/gtest.h>

#include <cstring>
#include <filesystem>

#include "services/base/random.h"
#include "services/base/status.h"
#include "tests/support/safetensors_file.h"
#include "tests/support/temp_dir.h"

namespace expertmesh::model {
namespace {

using test_support::SafetensorsBytes;
using test_support::TempDir;
using test_support::TensorBytes;
using test_support::WriteFile;

std::span<const std::byte> Bytes(std::string_view text) { return std::as_bytes(std::span(text)); }

absl::StatusOr<SafetensorsHeader> Parse(const std::string& file) {
  return ParseSafetensorsHeader(Bytes(file), file.size());
}

const std::vector<TensorBytes> kTwo = {{"a", "F32", {2, 3}, std::string(24, 'a')},
                                       {"b", "BF16", {5}, std::string(10, 'b')}};

TEST(SafetensorsHeader, ReadsNamesTypesShapesAndOffsets) {
  const auto header = Parse(SafetensorsBytes(kTwo));
  ASSERT_TRUE(header.ok()) << header.status();
  ASSERT_EQ(header->tensors.size(), 2u);
  EXPECT_EQ(header->tensors[0].name, "a");
  EXPECT_EQ(header->tensors[0].type, TensorType::kF32);
  EXPECT_EQ(header->tensors[0].shape, (std::vector<uint64_t>{2, 3}));
  EXPECT_EQ(header->tensors[1].type, TensorType::kBf16);
  EXPECT_EQ(header->tensors[1].begin, 24u);
  EXPECT_EQ(header->tensors[1].end, 34u);
}

TEST(SafetensorsHeader, AcceptsMetadataPaddingScalarsEmptyTensorsAndGaps) {
  const std::string text = R"({"__metadata__":{"format":"pt","note":"a \"quoted\" one"},)"
                           R"("s":{"shape":[],"data_offsets":[4,8],"dtype":"F32"},)"
                           R"("e":{"dtype":"I64","shape":[0,7],"data_offsets":[6,6]}}     )";
  const auto header = Parse(SafetensorsBytes(text, std::string(16, 0)));
  ASSERT_TRUE(header.ok()) << header.status();
  EXPECT_EQ(header->tensors.size(), 2u);
  EXPECT_EQ(header->data_begin, 8 + text.size());
}

TEST(SafetensorsHeader, KnowsEveryTypeOfTheFormatsPage) {
  for (const auto& [name, size] : std::vector<std::pair<std::string, size_t>>{{"F32", 4},
                                                                              {"F16", 2},
                                                                              {"BF16", 2},
                                                                              {"F8_E4M3", 1},
                                                                              {"F8_E8M0", 1},
                                                                              {"I8", 1},
                                                                              {"U8", 1},
                                                                              {"I32", 4},
                                                                              {"I64", 8}}) {
    const auto header = Parse(SafetensorsBytes({{"t", name, {3}, std::string(3 * size, 0)}}));
    ASSERT_TRUE(header.ok()) << header.status();
    EXPECT_EQ(TensorTypeName(header->tensors[0].type), name);
    EXPECT_EQ(TensorTypeBytes(header->tensors[0].type), size);
  }
}

// Headers over 16 bytes of data, each wrong in one way.
TEST(SafetensorsHeader, RefusesWhatContradictsItself) {
  for (const std::string text :
       {R"({"a":{"dtype":"F32","shape":[4],"data_offsets":[0,12]}})",  // span against shape
        R"({"a":{"dtype":"F32","shape":[4],"data_offsets":[16,0]}})",  // ends before it begins
        R"({"a":{"dtype":"F32","shape":[5],"data_offsets":[0,20]}})",  // past the file
        R"({"a":{"dtype":"F32","shape":[4],"data_offsets":[8,24]}})",  // past the file
        R"({"a":{"dtype":"U8","shape":[9],"data_offsets":[0,9]},)"     // overlap by one byte
        R"("b":{"dtype":"U8","shape":[8],"data_offsets":[8,16]}})",
        R"({"b":{"dtype":"U8","shape":[16],"data_offsets":[0,16]},)"  // one inside the other
        R"("a":{"dtype":"U8","shape":[1],"data_offsets":[3,4]}})",
        R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},)"  // the same name twice
        R"("a":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}})",
        R"({"a":{"dtype":"F31","shape":[4],"data_offsets":[0,16]}})",  // no such type
        R"({"a":{"dtype":4,"shape":[4],"data_offsets":[0,16]}})",
        R"({"a":{"dtype":"F32","dtype":"F32","shape":[4],"data_offsets":[0,16]}})",
        R"({"a":{"shape":[4],"data_offsets":[0,16]}})",  // a key missing
        R"({"a":{"dtype":"F32","data_offsets":[0,16]}})", R"({"a":{"dtype":"F32","shape":[4]}})",
        R"({"a":{"dtype":"F32","shape":[4],"data_offsets":[0,16],"x":1}})",
        R"({"a":{"dtype":"F32","shape":4,"data_offsets":[0,16]}})",
        R"({"a":{"dtype":"F32","shape":[-4],"data_offsets":[0,16]}})",
        R"({"a":{"dtype":"F32","shape":[4.0],"data_offsets":[0,16]}})",
        R"({"a":{"dtype":"F32","shape":["4"],"data_offsets":[0,16]}})",
        R"({"a":{"dtype":"F32","shape":[[4]],"data_offsets":[0,16]}})",
        R"({"a":{"dtype":"F32","shape":[1,1,1,1,1,1,1,1,4],"data_offsets":[0,16]}})",
        R"({"a":{"dtype":"F32","shape":[4],"data_offsets":[0]}})",
        R"({"a":{"dtype":"F32","shape":[4],"data_offsets":[0,8,16]}})",
        R"({"a":{"dtype":"F32","shape":[4],"data_offsets":{}}})",
        // Products and ends that overflow 64 bits, also back to 16.
        R"({"a":{"dtype":"F32","shape":[4294967296,4294967296,4],"data_offsets":[0,16]}})",
        R"({"a":{"dtype":"F32","shape":[4611686018427387908],"data_offsets":[0,16]}})",
        R"({"a":{"dtype":"U8","shape":[16],"data_offsets":[18446744073709551615,15]}})",
        R"({"a":{"dtype":"U8","shape":[99999999999999999999],"data_offsets":[0,16]}})",
        R"({"a":5})", R"({"a":null})", R"({"a":[]})", R"({"__metadata__":{"a":1}})",
        R"({"__metadata__":"text"})", R"({"a":{"dtype":"F32","shape":[4],"data_offsets":[0,16]})",
        R"({"a":{"dtype":"F32","shape":[4],"data_offsets":[0,16]}}x)", R"({}{})", R"( {})", R"([])",
        R"({"a)", R"({,})", "", "{\"\xff\":{}}"}) {
    const auto header = Parse(SafetensorsBytes(text, std::string(16, 0)));
    ASSERT_FALSE(header.ok()) << text;
    EXPECT_EQ(base::ReasonOf(header.status()), base::Reason::kBadCheckpoint);
    EXPECT_EQ(header.status().message().find('\n'), header.status().message().npos);
  }
}

TEST(SafetensorsHeader, NamesTheTensorOnOneLineWhateverItsName) {
  const std::string text =
      "{\"bad\\nname\":{\"dtype\":\"F32\",\"shape\":[4],\"data_offsets\":[0,12]}}";
  const std::string message(Parse(SafetensorsBytes(text, std::string(16, 0))).status().message());
  EXPECT_NE(message.find("bad\\nname"), std::string::npos) << message;
  EXPECT_EQ(message.find('\n'), std::string::npos) << message;
}

TEST(SafetensorsHeader, RefusesEveryTruncation) {
  const std::string file = SafetensorsBytes(kTwo);
  for (size_t size = 0; size < file.size(); ++size) {
    const auto header = Parse(file.substr(0, size));
    ASSERT_EQ(base::ReasonOf(header.status()), base::Reason::kBadCheckpoint) << size;
  }
}

TEST(SafetensorsHeader, RefusesAHeaderLengthBeyondItsBounds) {
  for (const uint64_t length :
       {uint64_t{100'000'001}, uint64_t{1} << 63, ~uint64_t{0}, uint64_t{9}}) {
    std::string file(16, '{');
    std::memcpy(file.data(), &length, 8);
    EXPECT_EQ(base::ReasonOf(Parse(file).status()), base::Reason::kBadCheckpoint) << length;
  }
}

TEST(SafetensorsHeader, RandomDamageNeverBreaksTheReader) {
  const std::string good = SafetensorsBytes(kTwo);
  size_t accepted = 0;
  for (uint32_t round = 0; round < 20000; ++round) {
    std::string file = good;
    const auto random = base::Philox({1, 2}, {round, 0, 0, 0});
    for (size_t i = 0; i < 1 + random[0] % 3; ++i) {
      file[(random[1] >> (8 * i)) % file.size()] = static_cast<char>(random[2] >> (8 * i));
    }
    const auto header = Parse(file);
    accepted += header.ok();
    if (!header.ok()) continue;
    for (const TensorEntry& entry : header->tensors) {
      ASSERT_LE(entry.begin, entry.end);
      ASSERT_LE(header->data_begin + entry.end, file.size());
    }
  }
  EXPECT_GT(accepted, 0u);  // damage in the data is not the header's to see
  EXPECT_LT(accepted, 20000u);
}

TEST(Checkpoint, OpensASingleFile) {
  const TempDir dir;
  WriteFile(dir / "model.safetensors", SafetensorsBytes(kTwo));
  const auto checkpoint = Checkpoint::Open(dir.path());
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  EXPECT_EQ((*checkpoint)->tensors().size(), 2u);
  EXPECT_EQ((*checkpoint)->directory(), dir.path());
  const auto a = (*checkpoint)->Float("a", {2, 3});
  ASSERT_TRUE(a.ok()) << a.status();
  EXPECT_EQ(a->bytes.size(), 24u);
  EXPECT_EQ(a->bytes[23], std::byte{'a'});
  (*checkpoint)->Release(*a);
  EXPECT_EQ(a->bytes[0], std::byte{'a'});  // released bytes come back from the file
  EXPECT_EQ((*checkpoint)->Find("c"), nullptr);
}

TEST(Checkpoint, FloatRefusesMissingMisshapenAndMistypedNamingFileAndTensor) {
  const TempDir dir;
  const std::string path = dir / "model.safetensors";
  WriteFile(path, SafetensorsBytes({{"a", "F32", {2, 3}, std::string(24, 0)},
                                    {"i", "I32", {4}, std::string(16, 0)}}));
  const auto checkpoint = *Checkpoint::Open(dir.path());
  for (const auto& [name, shape] : std::vector<std::pair<std::string, std::vector<uint64_t>>>{
           {"none", {1}}, {"a", {3, 2}}, {"a", {6}}, {"a", {2, 3, 1}}, {"i", {4}}}) {
    const absl::Status status = checkpoint->Float(name, shape).status();
    EXPECT_EQ(base::ReasonOf(status), base::Reason::kBadCheckpoint);
    EXPECT_NE(status.message().find(path), status.message().npos) << status;
    EXPECT_NE(status.message().find("\"" + name + "\""), status.message().npos) << status;
  }
}

TEST(Checkpoint, BrokenFilesAreErrorsThatNameThem) {
  const std::string good = SafetensorsBytes(kTwo);
  for (const std::string& bytes : {std::string(), good.substr(0, 5), good.substr(0, 60),
                                   good.substr(0, good.size() - 1), std::string(4096, '\0')}) {
    const TempDir dir;
    WriteFile(dir / "model.safetensors", bytes);
    const absl::Status status = Checkpoint::Open(dir.path()).status();
    EXPECT_EQ(base::ReasonOf(status), base::Reason::kBadCheckpoint);
    EXPECT_NE(status.message().find(dir / "model.safetensors"), status.message().npos) << status;
  }
  const TempDir empty;
  EXPECT_EQ(base::ReasonOf(Checkpoint::Open(empty.path()).status()), base::Reason::kBadCheckpoint);
  EXPECT_EQ(base::ReasonOf(Checkpoint::Open(empty / "absent").status()),
            base::Reason::kBadCheckpoint);
  std::filesystem::create_directory(empty / "model.safetensors");  // a folder is not a weight file
  EXPECT_EQ(base::ReasonOf(Checkpoint::Open(empty.path()).status()), base::Reason::kBadCheckpoint);
}

class IndexedCheckpoint : public ::testing::Test {
 protected:
  void WriteIndex(const std::string& weight_map) {
    WriteFile(dir_ / "model.safetensors.index.json",
              "{\"metadata\":{\"total_size\":1},\"weight_map\":" + weight_map + "}");
  }
  absl::Status Open() { return Checkpoint::Open(dir_.path()).status(); }

  TempDir dir_;
};

TEST_F(IndexedCheckpoint, JoinsItsShards) {
  WriteFile(dir_ / "one.safetensors", SafetensorsBytes({kTwo[0]}));
  WriteFile(dir_ / "two.safetensors", SafetensorsBytes({kTwo[1]}));
  WriteIndex(R"({"a":"one.safetensors","b":"two.safetensors"})");
  const auto checkpoint = Checkpoint::Open(dir_.path());
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  EXPECT_TRUE((*checkpoint)->Float("a", {2, 3}).ok());
  EXPECT_EQ((*checkpoint)->Find("b")->file, dir_ / "two.safetensors");
}

TEST_F(IndexedCheckpoint, RefusesAnIndexThatDisagreesWithItsShards) {
  WriteFile(dir_ / "one.safetensors", SafetensorsBytes({kTwo[0]}));
  WriteFile(dir_ / "both.safetensors", SafetensorsBytes(kTwo));
  for (const char* map : {R"({"a":"absent.safetensors"})",                      // no such shard
                          R"({"a":"one.safetensors","c":"one.safetensors"})",   // not in the shard
                          R"({"a":"one.safetensors","b":"both.safetensors"})",  // a is in two
                          R"({"a":"both.safetensors"})",                        // b is not indexed
                          R"({"a":"../one.safetensors"})", R"({"a":"/etc/passwd"})", R"({"a":""})",
                          R"({"a":7})", R"({})", R"([])", R"("x")", R"({"a")"}) {
    WriteIndex(map);
    EXPECT_EQ(base::ReasonOf(Open()), base::Reason::kBadCheckpoint) << map;
  }
  WriteFile(dir_ / "model.safetensors.index.json", "{}");
  EXPECT_EQ(base::ReasonOf(Open()), base::Reason::kBadCheckpoint);
}

class RevisionTest : public ::testing::Test {
 protected:
  RevisionTest() {
    WriteFile(dir_ / "config.json", "{}");
    WriteWeights(kTwo);
  }
  void WriteWeights(const std::vector<TensorBytes>& tensors) {
    WriteFile(dir_ / "model.safetensors", SafetensorsBytes(tensors));
  }
  std::string Revision(const std::string& options = "") {
    return *(*Checkpoint::Open(dir_.path()))->Revision(options);
  }
  std::string cache() const { return dir_ / "expertmesh-revision.json"; }

  TempDir dir_;
};

TEST_F(RevisionTest, IsTheSameWithAndWithoutItsCache) {
  const std::string fresh = Revision();
  EXPECT_EQ(fresh.size(), 64u);
  ASSERT_TRUE(std::filesystem::exists(cache()));
  EXPECT_EQ(Revision(), fresh);
  std::filesystem::remove(cache());
  EXPECT_EQ(Revision(), fresh);
}

TEST_F(RevisionTest, ReadsTheCacheAndWritesNothingElse) {
  const std::string fresh = Revision();
  const auto written = std::filesystem::last_write_time(cache());
  EXPECT_EQ(Revision(), fresh);
  EXPECT_EQ(std::filesystem::last_write_time(cache()), written);
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(dir_.path()), {}), 3);
}

TEST_F(RevisionTest, ChangesWithConfigWeightsNamesAndOptions) {
  std::vector<std::string> seen = {Revision(), Revision("masked_gate_group=zero")};
  WriteFile(dir_ / "config.json", "{ }");
  seen.push_back(Revision());
  auto changed = kTwo;
  changed[1].bytes[9] = 'c';  // same size: only the time of change tells
  WriteWeights(changed);
  std::filesystem::last_write_time(
      dir_ / "model.safetensors",
      std::filesystem::file_time_type::clock::now() + std::chrono::seconds(5));
  seen.push_back(Revision());
  changed[0].name = "A";
  changed[0].shape = {3, 2};
  WriteWeights(changed);
  std::filesystem::last_write_time(
      dir_ / "model.safetensors",
      std::filesystem::file_time_type::clock::now() + std::chrono::seconds(9));
  seen.push_back(Revision());
  std::sort(seen.begin(), seen.end());
  EXPECT_EQ(std::unique(seen.begin(), seen.end()), seen.end());
}

TEST_F(RevisionTest, IgnoresABrokenCacheAndMendsIt) {
  const std::string fresh = Revision();
  const std::string good = test_support::ReadFile(cache());
  std::string flipped = good;
  const size_t digit = good.find("\"weights\":\"") + 12;
  flipped[digit] = flipped[digit] == '0' ? '1' : '0';
  for (const std::string& bad : {std::string(), std::string("{"), std::string("[]"), flipped,
                                 good.substr(0, good.size() - 2), good + " "}) {
    WriteFile(cache(), bad);
    EXPECT_EQ(Revision(), fresh) << bad;
    EXPECT_EQ(test_support::ReadFile(cache()), good);
  }
}

TEST_F(RevisionTest, DoesNotDependOnHowTheWeightsAreCut) {
  const std::string single = Revision();
  std::filesystem::remove(dir_ / "model.safetensors");
  WriteFile(dir_ / "1.safetensors", SafetensorsBytes({kTwo[1]}));
  WriteFile(dir_ / "2.safetensors", SafetensorsBytes({kTwo[0]}));
  WriteFile(dir_ / "model.safetensors.index.json",
            R"({"weight_map":{"b":"1.safetensors","a":"2.safetensors"}})");
  EXPECT_EQ(Revision(), single);
}

TEST_F(RevisionTest, NeedsConfigJson) {
  std::filesystem::remove(dir_ / "config.json");
  const auto checkpoint = *Checkpoint::Open(dir_.path());
  EXPECT_EQ(base::ReasonOf(checkpoint->Revision().status()), base::Reason::kBadConfig);
}

}  // namespace
}  // namespace expertmesh::model

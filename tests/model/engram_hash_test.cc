// Rows of the memory's tables (docs/model-family.md §4.0), and tables of numbers that are wrong.
#include "model/engram_hash.h"

#include <gtest/gtest.h>

#include "model/checkpoint.h"
#include "model/writer/model_writer.h"
#include "model/writer/presets.h"
#include "services/base/status.h"
#include "tests/support/safetensors_file.h"
#include "tests/support/temp_dir.h"

namespace expertmesh::model {
namespace {

using test_support::TempDir;
using Numbers = std::vector<int64_t>;

std::string Bytes(const Numbers& numbers) {
  return {reinterpret_cast<const char*>(numbers.data()), numbers.size() * sizeof(int64_t)};
}
std::string Bytes(const std::vector<int32_t>& numbers) {
  return {reinterpret_cast<const char*>(numbers.data()), numbers.size() * sizeof(int32_t)};
}

// The published 1 T memory of docs/formats.md §12, with the four classes it is computed for.
struct Published {
  Config config;
  std::vector<int32_t> classes = {5, 17, 99091, 42, 7};
  Numbers primes1 = {16000057, 16000079, 16000081, 16000097, 16000121, 16000129,
                     16000133, 16000183, 16000189, 16000207, 16000211, 16000253,
                     16000277, 16000289, 16000307, 16000321, 16000339, 16000381,
                     16000393, 16000399, 16000403, 16000409, 16000447, 16000463};
  Numbers multipliers1 = {76632096046245, 4839876093313, 35959672319349, 73987337458391};
  Numbers primes14 = {16000477, 16000487, 16000499, 16000507, 16000511, 16000573,
                      16000609, 16000627, 16000667, 16000669, 16000693, 16000697,
                      16000711, 16000729, 16000759, 16000769, 16000781, 16000799,
                      16000813, 16000819, 16000841, 16000877, 16000879, 16000889};
  Numbers multipliers14 = {67716810739261, 51510806800915, 30921347202721, 82619226485591};

  Published() {
    config = FindPreset("1t")->config;
    config.vocab_size = 5;
    config.engram->pad_token_id = 4;
  }

  absl::StatusOr<EngramHash> Load() const {
    TempDir dir;
    test_support::WriteFile(
        dir / "model.safetensors",
        test_support::SafetensorsBytes(
            {{"model.engram.token_class", "I32", {5}, Bytes(classes)},
             {"model.layers.1.engram.primes", "I64", {24}, Bytes(primes1)},
             {"model.layers.1.engram.multipliers", "I64", {4}, Bytes(multipliers1)},
             {"model.layers.14.engram.primes", "I64", {24}, Bytes(primes14)},
             {"model.layers.14.engram.multipliers", "I64", {4}, Bytes(multipliers14)}}));
    test_support::WriteFile(dir / "config.json", ConfigJson(config));
    const auto checkpoint = Checkpoint::Open(dir.path());
    if (!checkpoint.ok()) return checkpoint.status();
    return EngramHash::Load(**checkpoint, config);
  }
};

std::vector<uint64_t> Rows(const EngramHash& hash, size_t place,
                           const std::vector<uint32_t>& previous, uint32_t token) {
  std::vector<uint64_t> rows(hash.columns());
  hash.Rows(place, previous, token, rows.data());
  return {rows[0], rows[8], rows[16]};
}

TEST(EngramHash, RowsArePublishedOnes) {
  const auto hash = Published().Load();
  ASSERT_TRUE(hash.ok()) << hash.status();
  EXPECT_EQ(hash->columns(), 24u);
  EXPECT_EQ(hash->lookback(), 3u);
  using Some = std::vector<uint64_t>;
  EXPECT_EQ(Rows(*hash, 0, {}, 0), (Some{6961830, 138376174, 266485882}));
  EXPECT_EQ(Rows(*hash, 0, {0, 1, 2}, 3), (Some{13131409, 140379165, 266257160}));
  EXPECT_EQ(Rows(*hash, 1, {0, 1, 2}, 3), (Some{3275938, 142937982, 257163254}));
  // What lies before the lookback does not count.
  EXPECT_EQ(Rows(*hash, 0, {3, 3, 0, 1, 2}, 3), Rows(*hash, 0, {0, 1, 2}, 3));
  EXPECT_NE(Rows(*hash, 0, {1, 2}, 3), Rows(*hash, 0, {0, 1, 2}, 3));
}

TEST(EngramHash, RefusesNumbersThatCannotBe) {
  const auto refused = [](const Published& bad, const std::string& tensor) {
    const absl::Status status = bad.Load().status();
    EXPECT_EQ(base::ReasonOf(status), base::Reason::kBadCheckpoint) << tensor;
    EXPECT_NE(status.message().find(tensor), std::string::npos) << status;
  };
  Published bad;
  bad.multipliers1[2] = 35959672319348;
  refused(bad, "model.layers.1.engram.multipliers");
  bad = {};
  bad.multipliers14[0] = int64_t{1} << 62 | 1;
  refused(bad, "model.layers.14.engram.multipliers");
  bad = {};
  bad.primes14[3] = bad.primes1[3];
  refused(bad, "model.layers.14.engram.primes");
  bad = {};
  bad.primes1[0] = 15999989;
  refused(bad, "model.layers.1.engram.primes");
  bad = {};
  bad.primes1[0] += 2;
  refused(bad, "model.layers.1.engram.primes");
  bad = {};
  bad.classes[1] = 99092;
  refused(bad, "model.engram.token_class");
  bad = {};
  bad.classes[1] = -1;
  refused(bad, "model.engram.token_class");
}

TEST(EngramHash, ReadsWhatTheWriterWrites) {
  TempDir dir;
  WriteOptions options;
  options.directory = dir / "tiny";
  ASSERT_TRUE(WriteModel(*FindPreset("tiny"), options).ok());
  const auto checkpoint = Checkpoint::Open(options.directory);
  ASSERT_TRUE(checkpoint.ok());
  const auto hash = EngramHash::Load(**checkpoint, FindPreset("tiny")->config);
  ASSERT_TRUE(hash.ok()) << hash.status();
  EXPECT_EQ(hash->layers(), 2u);
  // Two tokens of one class have the same rows.
  std::vector<uint64_t> even(4);
  std::vector<uint64_t> odd(4);
  hash->Rows(1, std::vector<uint32_t>{20, 31}, 40, even.data());
  hash->Rows(1, std::vector<uint32_t>{21, 30}, 41, odd.data());
  EXPECT_EQ(even, odd);
  for (const uint64_t row : even) EXPECT_LT(row, 1746u);
}

TEST(EngramHash, AModelWithoutMemoryHasNone) {
  TempDir dir;
  WriteOptions options;
  options.directory = dir / "v3";
  ASSERT_TRUE(WriteModel(*FindPreset("tiny-v3"), options).ok());
  const auto checkpoint = Checkpoint::Open(options.directory);
  const auto hash = EngramHash::Load(**checkpoint, FindPreset("tiny-v3")->config);
  ASSERT_TRUE(hash.ok());
  EXPECT_EQ(hash->layers(), 0u);
  EXPECT_EQ(hash->lookback(), 0u);
}

}  // namespace
}  // namespace expertmesh::model

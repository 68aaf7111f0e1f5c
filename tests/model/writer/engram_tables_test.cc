// The integers of the memory's hash against published and independently computed ones
// (docs/formats.md §12).
#include "model/writer/engram_tables.h"

#include <gtest/gtest.h>

#include "model/writer/numpy_random.h"
#include "model/writer/presets.h"

namespace expertmesh::model {
namespace {

using Numbers = std::vector<uint64_t>;

EngramConfig Published() {
  EngramConfig engram;
  engram.layer_ids = {1, 14};
  engram.max_ngram = 4;
  engram.n_heads = 8;
  engram.head_dim = 256;
  engram.vocab_size = 16000000;
  engram.num_classes = 99092;
  return engram;
}

EngramConfig Toy() {
  EngramConfig engram;
  engram.layer_ids = {0, 1};
  engram.max_ngram = 3;
  engram.n_heads = 2;
  engram.head_dim = 8;
  engram.vocab_size = 100;
  engram.num_classes = 1000;
  return engram;
}

TEST(EngramTables, MultipliersArePublishedOnes) {
  EXPECT_EQ(EngramMultipliers(Published(), 1),
            (Numbers{76632096046245, 4839876093313, 35959672319349, 73987337458391}));
  EXPECT_EQ(EngramMultipliers(Toy(), 1),
            (Numbers{7593627661414631, 479593001838623, 3563315849468963}));
  EXPECT_EQ(EngramMultipliers(Toy(), 0),
            (Numbers{5874934615388535, 2488343231644625, 377914054924497}));
}

TEST(EngramTables, PrimesAreUsedOnceOverAllLayers) {
  EXPECT_EQ(EngramPrimes(Toy()),
            (std::vector<Numbers>{{101, 103, 107, 109}, {113, 127, 131, 137}}));
  const Numbers first = EngramPrimes(Published())[0];
  EXPECT_EQ(first.size(), 24u);
  EXPECT_EQ(EngramRowCounts(Published()), (Numbers{384006168, 384016682}));
}

TEST(EngramTables, RowsOfThePresetsAreThoseOfTheirPage) {
  const std::vector<std::pair<const char*, Numbers>> rows = {{"tiny", {1650, 1746}},
                                                             {"demo", {21800, 22278}},
                                                             {"bench-1b-full", {3771012, 3776224}},
                                                             {"1t", {384006168, 384016682}}};
  for (const auto& [name, counts] : rows) {
    EXPECT_EQ(FindPreset(name)->config.engram->num_embeddings, counts) << name;
  }
}

TEST(EngramTables, ClassesAreSharedEvenlyAndAreTheIdentityAtMost) {
  EXPECT_EQ(EvenTokenClasses(6, 3), (std::vector<uint32_t>{0, 0, 1, 1, 2, 2}));
  EXPECT_EQ(EvenTokenClasses(3, 3), (std::vector<uint32_t>{0, 1, 2}));
}

// numpy.random.default_rng(42).integers(0, 2**40, 3).
TEST(NumpyRandom, BoundedIntegersAreNumpys) {
  NumpyRandom random(42);
  const Numbers drawn = {random.Below(uint64_t{1} << 40), random.Below(uint64_t{1} << 40),
                         random.Below(uint64_t{1} << 40)};
  EXPECT_EQ(drawn, (Numbers{850973674774, 482551947687, 944038396526}));
}

}  // namespace
}  // namespace expertmesh::model

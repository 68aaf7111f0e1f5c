#include "attention-worker/core/micro_batches.h"

#include <gtest/gtest.h>

#include <map>

namespace expertmesh::attention_worker {
namespace {

// Steps of which each takes `whole[parts]` µs, `waited` of it for experts.
struct Steps {
  std::map<size_t, int64_t> whole;
  double waited = 0.5;
  bool decode = true;
};

size_t RunSteps(MicroBatches& batches, const Steps& steps, size_t rows, int count) {
  size_t parts = 0;
  for (int i = 0; i < count; ++i) {
    parts = batches.Choose(rows, steps.decode);
    const int64_t whole = steps.whole.at(parts);
    batches.Took(rows, steps.decode,
                 {base::Micros(whole),
                  base::Micros(static_cast<int64_t>(static_cast<double>(whole) * steps.waited))});
  }
  return parts;
}

TEST(MicroBatches, GoesUpWhereItIsFasterAndStops) {
  MicroBatches batches(0);
  const Steps steps{{{1, 1000}, {2, 700}, {4, 900}}};
  EXPECT_EQ(batches.Choose(64, true), 1u);
  EXPECT_EQ(RunSteps(batches, steps, 64, 1000), 2u);
  MicroBatches further(0);
  EXPECT_EQ(RunSteps(further, {{{1, 1000}, {2, 700}, {4, 500}}}, 64, 1000), 4u);
}

TEST(MicroBatches, StaysAtOneWhereNothingIsWaitedFor) {
  MicroBatches batches(0);
  for (int i = 0; i < 1000; ++i) {
    ASSERT_EQ(batches.Choose(64, true), 1u);
    batches.Took(64, true, {base::Micros(1000), base::Micros(100)});
  }
}

TEST(MicroBatches, ALittleFasterIsNotEnough) {
  MicroBatches batches(0);
  EXPECT_EQ(RunSteps(batches, {{{1, 1000}, {2, 980}, {4, 980}}}, 64, 1000), 1u);
}

TEST(MicroBatches, GoesBackWhenTimesChange) {
  MicroBatches batches(0);
  ASSERT_EQ(RunSteps(batches, {{{1, 1000}, {2, 700}, {4, 900}}}, 64, 1000), 2u);
  EXPECT_EQ(RunSteps(batches, {{{1, 500}, {2, 700}, {4, 900}}}, 64, 4000), 1u);
}

TEST(MicroBatches, SizesLearnApart) {
  MicroBatches batches(0);
  ASSERT_EQ(RunSteps(batches, {{{1, 1000}, {2, 700}, {4, 900}}}, 64, 1000), 2u);
  EXPECT_EQ(batches.Choose(200, true), 1u);
  EXPECT_EQ(batches.Choose(64, false), 1u);
  EXPECT_EQ(batches.Choose(65, true), 2u) << "a like size";
}

TEST(MicroBatches, FewRowsAreNotCut) {
  MicroBatches batches(0);
  EXPECT_EQ(
      RunSteps(batches, {{{1, 1000}, {2, 500}, {4, 100}}}, 2 * MicroBatches::kRowsMin - 1, 1000),
      1u);
  MicroBatches some(0);
  EXPECT_EQ(RunSteps(some, {{{1, 1000}, {2, 500}, {4, 100}}}, 2 * MicroBatches::kRowsMin, 1000),
            2u);
  EXPECT_EQ(MicroBatches(0).Choose(0, true), 1u);
}

TEST(MicroBatches, AFixedNumberIsKeptWhereThereAreRows) {
  MicroBatches batches(3);
  EXPECT_EQ(batches.Choose(100, true), 3u);
  EXPECT_EQ(batches.Choose(2, true), 2u);
  EXPECT_EQ(batches.Choose(0, true), 1u);
  batches.Took(100, true, {base::Micros(1), base::Micros(1)});
  EXPECT_EQ(batches.Choose(100, true), 3u);
}

}  // namespace
}  // namespace expertmesh::attention_worker

#include "gateway/generation.h"

#include <gtest/gtest.h>

#include <condition_variable>
#include <mutex>
#include <optional>

#include "services/base/status.h"
#include "services/rpc/channel.h"
#include "tests/gateway/fake_worker.h"

namespace expertmesh::gateway {
namespace {

using base::Error;
using base::Reason;

constexpr auto kBudget = std::chrono::minutes(1);

class GenerationTest : public testing::Test {
 protected:
  // Outlives the Generation: wakes may come late.
  struct News {
    std::mutex mutex;
    std::condition_variable changed;
    int count = 0;
  };

  void Start(std::chrono::microseconds budget = kBudget) {
    generation_.emplace(rpc::MakeChannel(worker_.address()), calls_,
                        inference::v1::GenerateRequest(), rpc::Identity(), budget, [news = news_] {
                          std::lock_guard lock(news->mutex);
                          ++news->count;
                          news->changed.notify_all();
                        });
  }
  void WaitForWakes(int count) {
    std::unique_lock lock(news_->mutex);
    ASSERT_TRUE(news_->changed.wait_for(lock, std::chrono::seconds(30),
                                        [&] { return news_->count >= count; }));
  }
  // Everything until the end; no batch is larger than the queue.
  Generation::Batch TakeAll() {
    Generation::Batch all;
    while (!all.ended) {
      int seen = 0;
      {
        std::lock_guard lock(news_->mutex);
        seen = news_->count;
      }
      Generation::Batch batch = generation_->Take();
      EXPECT_LE(batch.events.size(), Generation::kQueueEventsMax);
      for (auto& event : batch.events) all.events.push_back(std::move(event));
      all.ended = batch.ended;
      all.status = batch.status;
      if (batch.empty()) WaitForWakes(seen + 1);
    }
    return all;
  }

  FakeWorker worker_;
  const std::shared_ptr<News> news_ = std::make_shared<News>();
  const std::shared_ptr<WorkerCalls> calls_ = std::make_shared<WorkerCalls>("attention-0");
  std::optional<Generation> generation_;
};

TEST_F(GenerationTest, EventsInOrderThenTheStatus) {
  worker_.Follow(Says({5, 6, 7}));
  Start();
  const Generation::Batch all = TakeAll();
  EXPECT_TRUE(all.status.ok()) << all.status;
  ASSERT_EQ(all.events.size(), 5u);
  EXPECT_EQ(all.events[1].token().id(), 5u);
  EXPECT_EQ(all.events[3].token().id(), 7u);
  EXPECT_TRUE(all.events[4].has_finished());
}

TEST_F(GenerationTest, TheReasonOfAFailure) {
  worker_.Follow({.events = {StartedEvent(1)}, .end = Error(Reason::kKvExhausted, "full")});
  Start();
  EXPECT_EQ(base::ReasonOf(TakeAll().status), Reason::kKvExhausted);
}

TEST_F(GenerationTest, AnEndWithoutFinishedIsAFailure) {
  worker_.Follow({.events = {StartedEvent(1), TokenEvent(5)}});
  Start();
  EXPECT_EQ(base::ReasonOf(TakeAll().status), Reason::kInternal);
}

TEST_F(GenerationTest, NobodyThere) {
  worker_.Die();
  Start();
  EXPECT_EQ(base::ReasonOf(TakeAll().status), Reason::kPeerLost);
}

TEST_F(GenerationTest, TheDeadline) {
  worker_.Follow({.hang = true});
  Start(std::chrono::milliseconds(20));
  EXPECT_EQ(base::ReasonOf(TakeAll().status), Reason::kDeadlineExceeded);
  EXPECT_TRUE(worker_.WaitForCancelled(1));
}

TEST_F(GenerationTest, AFullQueueStopsReadingAndNothingIsLost) {
  constexpr size_t kMore = 20000;
  worker_.Follow({.events = {StartedEvent(1), TokenEvent(5)},
                  .end = Error(Reason::kDraining, ""),
                  .repeat_last = kMore});
  Start();
  WaitForWakes(Generation::kQueueEventsMax);
  EXPECT_EQ(TakeAll().events.size(), kMore + 2);
}

TEST_F(GenerationTest, CancelEndsACallThatIsFull) {
  worker_.Follow({.events = {StartedEvent(1), TokenEvent(5)}, .hang = true, .repeat_last = 20000});
  Start();
  WaitForWakes(Generation::kQueueEventsMax);
  generation_->Cancel();
  const Generation::Batch all = TakeAll();
  EXPECT_TRUE(all.events.empty());
  EXPECT_EQ(base::ReasonOf(all.status), Reason::kCancelled);
  EXPECT_TRUE(worker_.WaitForCancelled(1));
}

TEST_F(GenerationTest, ALostWorkerEndsItsCallsWithTheReason) {
  worker_.Follow({.events = {StartedEvent(1), TokenEvent(5)}, .hang = true});
  Start();
  WaitForWakes(2);
  calls_->Lose(Error(Reason::kPeerLost, "gone"));
  Generation::Batch all = TakeAll();
  EXPECT_EQ(all.events.size(), 2u);  // what came stays
  EXPECT_EQ(base::ReasonOf(all.status), Reason::kPeerLost);
  EXPECT_EQ(all.status.message(), "attention worker attention-0: gone");
  EXPECT_TRUE(worker_.WaitForCancelled(1));
  // One that begins later does not begin.
  Start();
  all = TakeAll();
  EXPECT_EQ(base::ReasonOf(all.status), Reason::kPeerLost);
  EXPECT_TRUE(all.events.empty());
}

TEST_F(GenerationTest, ALostWorkerEndsACallThatIsFull) {
  worker_.Follow({.events = {StartedEvent(1), TokenEvent(5)}, .hang = true, .repeat_last = 20000});
  Start();
  WaitForWakes(Generation::kQueueEventsMax);
  calls_->Lose(Error(Reason::kPeerLost, "gone"));
  EXPECT_EQ(base::ReasonOf(TakeAll().status), Reason::kPeerLost);
  EXPECT_TRUE(worker_.WaitForCancelled(1));
}

TEST_F(GenerationTest, TheDestructorCancels) {
  worker_.Follow({.events = {StartedEvent(1)}, .hang = true});
  Start();
  WaitForWakes(1);
  generation_.reset();
  EXPECT_TRUE(worker_.WaitForCancelled(1));
}

}  // namespace
}  // namespace expertmesh::gateway

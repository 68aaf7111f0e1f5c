// The engine with threads: every call is answered once, whoever computes it, and batches are
// computed one at a time.
#include "expert-worker/expert_engine.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <mutex>
#include <thread>

#include "model/profile.h"

namespace expertmesh::expert_worker {
namespace {

constexpr size_t kHidden = 8;
constexpr auto kPatience = std::chrono::seconds(60);

/// A partial is its row's first value, everywhere. Remembers whether two computed at once.
class FakeSlice final : public model::ExpertSlice {
 public:
  explicit FakeSlice(std::atomic<bool>& overlapped)
      : overlapped_(overlapped), profile_(*model::ParseProfile("exact-f32")) {}
  void Compute(const model::ExpertBatch& batch, base::ThreadPool&,
               std::span<float> sums) const override {
    if (computing_.exchange(true)) overlapped_ = true;
    const auto* rows = reinterpret_cast<const float*>(batch.rows);
    for (size_t p = 0; p < batch.partials.size(); ++p) {
      std::fill_n(sums.data() + p * kHidden, kHidden, rows[batch.partials[p].row * kHidden]);
    }
    computing_ = false;
  }
  bool Hosts(uint32_t) const override { return true; }
  bool HasRoutedExperts(uint32_t) const override { return true; }
  uint32_t hidden_size() const override { return kHidden; }
  uint32_t expert_count() const override { return 4; }
  uint64_t weight_bytes() const override { return 0; }
  const std::string& revision() const override { return name_; }
  const model::Profile& profile() const override { return profile_; }
  const std::string& fingerprint() const override { return name_; }

 private:
  std::atomic<bool>& overlapped_;
  mutable std::atomic<bool> computing_{false};
  const model::Profile profile_;
  const std::string name_ = "r";
};

class EngineTest : public testing::Test {
 protected:
  transport::DispatchFrame Frame(uint64_t call, size_t rows) {
    const std::vector<float> data(rows * kHidden, static_cast<float>(call));
    std::vector<uint32_t> index;
    std::vector<uint32_t> offsets = {0};
    std::vector<base::PartialNode> partials;
    for (uint32_t r = 0; r < rows; ++r) {
      index.push_back(r);
      offsets.push_back(r + 1);
      partials.push_back({r, 0, 2});
    }
    transport::DispatchHeader header;
    header.set_call_id(call);
    header.set_layer(static_cast<uint32_t>(call % 3));
    header.mutable_model()->set_revision("r");
    header.set_profile("exact-f32");
    header.add_lane_row_counts(static_cast<uint32_t>(rows));
    header.add_lane_budgets_us(1u << 30);
    return transport::BuildDispatch(header, data, kHidden, index, base::Dtype::kF32, offsets,
                                    std::vector<uint16_t>(rows, 1), std::vector<float>(rows, 1.0f),
                                    partials, *buffers_);
  }
  transport::Reply ReplyTo(uint64_t call) {
    return [this, call](const transport::CombineFrame& answer) {
      const bool good = answer.header.call_id() == call && !answer.sums().empty() &&
                        answer.sums()[0] == static_cast<float>(call);
      std::lock_guard lock(mutex_);
      ++answered_;
      wrong_ += good ? 0 : 1;
      changed_.notify_all();
    };
  }

  const std::shared_ptr<transport::BufferPool> buffers_ = std::make_shared<transport::BufferPool>();
  base::SteadyClock clock_;
  telemetry::Metrics metrics_{"expert_worker"};
  std::atomic<bool> overlapped_{false};
  std::mutex mutex_;
  std::condition_variable changed_;
  int answered_ = 0;  // guarded by mutex_
  int wrong_ = 0;     // guarded by mutex_
};

TEST_F(EngineTest, EveryCallOfManyThreadsIsAnsweredOnce) {
  constexpr int kThreads = 6;
  constexpr int kCalls = 200;
  ExpertEngine engine(std::make_unique<FakeSlice>(overlapped_), {}, clock_, metrics_);
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < kCalls; ++i) {
        const auto call = static_cast<uint64_t>(t * kCalls + i + 1);
        // Some calls are too large for the thread that brings them.
        transport::DispatchFrame frame = Frame(call, i % 10 == 0 ? 70 : 1);
        if (t % 2 == 0) {
          engine.Queue(std::move(frame), ReplyTo(call));
          engine.ServeQueued();
          continue;
        }
        engine.Queue(std::move(frame), ReplyTo(call));
        if (i % 3 == 2) engine.ServeQueued();
      }
      engine.ServeQueued();
    });
  }
  for (std::thread& thread : threads) thread.join();
  std::unique_lock lock(mutex_);
  EXPECT_TRUE(changed_.wait_for(lock, kPatience, [&] { return answered_ == kThreads * kCalls; }));
  EXPECT_EQ(answered_, kThreads * kCalls);
  EXPECT_EQ(wrong_, 0);
  EXPECT_FALSE(overlapped_);
}

}  // namespace
}  // namespace expertmesh::expert_worker

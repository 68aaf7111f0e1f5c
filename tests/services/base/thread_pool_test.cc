#include "services/base/thread_pool.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <vector>

namespace expertmesh::base {
namespace {

TEST(ThreadPool, CoversEachIndexOnce) {
  for (int threads = 1; threads <= 4; ++threads) {
    ThreadPool pool(threads);
    EXPECT_EQ(pool.threads(), threads);
    for (size_t count : {0, 1, 2, 7, 64, 1001}) {
      for (size_t grain : {0, 1, 3, 64, 5000}) {
        std::vector<std::atomic<int>> seen(count);
        std::atomic<bool> thread_ok{true};
        pool.ParallelFor(count, grain, [&](size_t begin, size_t end, int thread) {
          if (thread < 0 || thread >= threads || end > count || begin >= end) thread_ok = false;
          for (size_t i = begin; i < end; ++i) ++seen[i];
        });
        EXPECT_TRUE(thread_ok);
        for (size_t i = 0; i < count; ++i) {
          ASSERT_EQ(seen[i], 1) << threads << " threads, " << i << " of " << count;
        }
      }
    }
  }
}

TEST(ThreadPool, ChunksAreNotSmallerThanTheGrain) {
  ThreadPool pool(4);
  std::atomic<int> small{0};
  pool.ParallelFor(1000, 48, [&](size_t begin, size_t end, int) {
    if (end - begin < 48 && end != 1000) ++small;
  });
  EXPECT_EQ(small, 0);
}

TEST(ThreadPool, WritesAreSeenByTheCallerLoopAfterLoop) {
  ThreadPool pool(3);
  std::vector<int> values(97, 0);  // plain ints: the pool must order the accesses
  for (int round = 1; round <= 500; ++round) {
    pool.ParallelFor(values.size(), 1, [&](size_t begin, size_t end, int) {
      for (size_t i = begin; i < end; ++i) ++values[i];
    });
    for (int value : values) ASSERT_EQ(value, round);
  }
}

// Longer than the threads spin, on both sides: they sleep and are woken.
TEST(ThreadPool, LoopsFarApartAndLongOnesAreSeenToo) {
  const auto busy = [] {
    const auto end = std::chrono::steady_clock::now() + std::chrono::microseconds(300);
    while (std::chrono::steady_clock::now() < end) {
    }
  };
  ThreadPool pool(3);
  std::vector<int> values(6, 0);
  for (int round = 1; round <= 30; ++round) {
    pool.ParallelFor(values.size(), 1, [&](size_t begin, size_t end, int thread) {
      if (thread == round % 3) busy();
      for (size_t i = begin; i < end; ++i) ++values[i];
    });
    for (int value : values) ASSERT_EQ(value, round);
    busy();
  }
}

TEST(ThreadPool, LessThanOneThreadIsOne) { EXPECT_EQ(ThreadPool(0).threads(), 1); }

}  // namespace
}  // namespace expertmesh::base

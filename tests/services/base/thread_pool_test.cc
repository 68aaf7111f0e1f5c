#include "services/base/thread_pool.h"

#include <gtest/gtest.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <thread>
#include <vector>

#include "services/base/status.h"

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

// What goes beside a loop runs once, on the calling thread, and may have loops of its own.
TEST(ThreadPool, ALoopGoesOnBesideWhatItsCallerDoes) {
  for (int threads = 1; threads <= 4; ++threads) {
    ThreadPool pool(threads);
    std::vector<int> outer(61, 0);
    std::vector<int> inner(37, 0);
    int firsts = 0;
    const auto caller = std::this_thread::get_id();
    const auto beside = [&] {
      ++firsts;
      EXPECT_EQ(std::this_thread::get_id(), caller);
      for (int twice = 0; twice < 2; ++twice) {
        pool.ParallelFor(inner.size(), 1, [&](size_t begin, size_t end, int thread) {
          EXPECT_LT(thread, threads);
          for (size_t i = begin; i < end; ++i) ++inner[i];
        });
      }
      for (const int value : inner) EXPECT_EQ(value, 2 * firsts);
    };
    for (int round = 1; round <= 300; ++round) {
      pool.ParallelForBeside(beside, outer.size(), 1, [&](size_t begin, size_t end, int) {
        for (size_t i = begin; i < end; ++i) ++outer[i];
      });
      ASSERT_EQ(firsts, round);
      for (const int value : outer) ASSERT_EQ(value, round);
    }
    pool.ParallelForBeside(beside, 0, 1, [](size_t, size_t, int) { FAIL(); });
    EXPECT_EQ(firsts, 301);
  }
}

TEST(ThreadPool, OthersBeginWhileTheCallerIsStillBeside) {
  ThreadPool pool(2);
  std::atomic<int> done{0};
  pool.ParallelForBeside(
      [&] {
        while (done < 8) std::this_thread::yield();  // by the other thread, or never
      },
      8, 1, [&](size_t begin, size_t end, int) { done += static_cast<int>(end - begin); });
  EXPECT_EQ(done, 8);
}

int g_release[2];
std::atomic<bool> g_held{false};

void Hold(int) {
  g_held = true;
  char byte = 0;
  while (read(g_release[0], &byte, 1) != 1) {
  }
  g_held = false;
}

// As if another process had its core: a thread that has taken nothing is not waited for.
TEST(ThreadPool, LoopsEndWithoutAThreadThatDoesNotCome) {
  ASSERT_EQ(pipe(g_release), 0);
  struct sigaction action = {};
  action.sa_handler = Hold;
  struct sigaction before = {};
  ASSERT_EQ(sigaction(SIGUSR1, &action, &before), 0);
  ThreadPool pool(2);
  std::atomic<pthread_t> other{};
  while (other.load() == pthread_t{}) {
    pool.ParallelFor(64, 1, [&](size_t, size_t, int thread) {
      if (thread == 1) other = pthread_self();
    });
  }
  ASSERT_EQ(pthread_kill(other, SIGUSR1), 0);
  while (!g_held) std::this_thread::yield();
  std::vector<int> seen(100, 0);
  for (int round = 0; round < 3; ++round) {
    pool.ParallelFor(seen.size(), 1, [&](size_t begin, size_t end, int thread) {
      EXPECT_EQ(thread, 0);
      for (size_t i = begin; i < end; ++i) ++seen[i];
    });
  }
  EXPECT_EQ(seen, std::vector<int>(100, 3));
  ASSERT_EQ(write(g_release[1], "", 1), 1);
  while (g_held) std::this_thread::yield();
  ASSERT_EQ(sigaction(SIGUSR1, &before, nullptr), 0);
  close(g_release[0]);
  close(g_release[1]);
}

TEST(ThreadPool, EachThreadStaysOnItsCpu) {
  // On a thread of its own: the caller is bound too, for good.
  std::thread([] {
    const std::vector<int> allowed = AllowedCpus();
    const ComputeThreads threads{3, {allowed.back(), allowed.front(), allowed.back()}};
    ASSERT_TRUE(CheckComputeThreads(threads).ok());
    ThreadPool pool(threads);
    std::atomic<int> elsewhere{0};
    for (int round = 0; round < 50; ++round) {
      pool.ParallelFor(64, 1, [&](size_t, size_t, int thread) {
        if (sched_getcpu() != threads.cpus[static_cast<size_t>(thread)]) ++elsewhere;
      });
    }
    EXPECT_EQ(elsewhere, 0);
    EXPECT_EQ(AllowedCpus(), std::vector<int>{allowed.back()});
  }).join();
}

TEST(ThreadPool, OnePerCpuBindsOnlyWhereTheNumbersAgree) {
  const std::vector<int> allowed = AllowedCpus();
  const auto count = static_cast<int>(allowed.size());
  EXPECT_EQ(OnePerCpu(count).cpus, allowed);
  EXPECT_TRUE(OnePerCpu(count + 1).cpus.empty());
  EXPECT_EQ(OnePerCpu(count + 1).count, count + 1);
}

TEST(ThreadPool, CpusThatDoNotFitAreRefused) {
  const int cpu = AllowedCpus().front();
  EXPECT_TRUE(CheckComputeThreads({4, {}}).ok());
  EXPECT_TRUE(CheckComputeThreads({1, {cpu}}).ok());
  for (const ComputeThreads& bad : std::vector<ComputeThreads>{
           {2, {cpu}}, {1, {cpu, cpu}}, {1, {-1}}, {1, {CPU_SETSIZE}}, {1, {CPU_SETSIZE - 1}}}) {
    const absl::Status status = CheckComputeThreads(bad);
    EXPECT_EQ(ReasonOf(status), Reason::kInvalidArgument);
    EXPECT_NE(status.message().find("--cpus"), std::string::npos);
  }
}

// A thread that is on its way to a loop that others have ended hears of the end of the pool too.
TEST(ThreadPool, ManyShortLivesEnd) {
  for (int life = 0; life < 3000; ++life) {
    ThreadPool pool(2);
    std::atomic<int> done{0};
    for (int loop = 0; loop < 1 + life % 3; ++loop) {
      pool.ParallelFor(2, 1, [&](size_t, size_t, int) { ++done; });
    }
    ASSERT_EQ(done, 2 * (1 + life % 3));
  }
}

TEST(ThreadPool, LessThanOneThreadIsOne) { EXPECT_EQ(ThreadPool(0).threads(), 1); }

}  // namespace
}  // namespace expertmesh::base

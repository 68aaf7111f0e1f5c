// What this machine can do at present: the floors that figures are held against in the same run.
// Prints one JSON object. Arguments: threads, MiB per thread, rounds.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <span>
#include <thread>
#include <vector>

#include "model/kernels/packed_matrix.h"

namespace expertmesh {
namespace {

using Clock = std::chrono::steady_clock;

// 64 bytes: one cache line, one AVX-512 register or two of AVX2.
typedef uint64_t Line __attribute__((vector_size(64)));

std::atomic<uint64_t> sink{0};

// Eight sums in flight, so that the adds never wait for each other; no software prefetch.
__attribute__((target_clones("avx512f", "avx2", "default"))) void Sum(const Line* lines,
                                                                      size_t count) {
  Line sums[8] = {};
  for (size_t i = 0; i + 8 <= count; i += 8) {
    for (size_t j = 0; j < 8; ++j) sums[j] += lines[i + j];
  }
  uint64_t total = 0;
  for (const Line& sum : sums) total += sum[0] ^ sum[7];
  sink += total;
}

// All threads start together; bytes of all of them over the time of the slowest.
double StreamRead(int threads, size_t bytes_each, std::span<const Line* const> buffers) {
  std::atomic<int> ready{0};
  std::atomic<bool> go{false};
  std::vector<std::thread> workers;
  for (int t = 0; t < threads; ++t) {
    workers.emplace_back([&, t] {
      ++ready;
      while (!go) std::this_thread::yield();
      Sum(buffers[static_cast<size_t>(t)], bytes_each / sizeof(Line));
    });
  }
  while (ready < threads) std::this_thread::yield();
  const Clock::time_point start = Clock::now();
  go = true;
  for (std::thread& worker : workers) worker.join();
  const double seconds = std::chrono::duration<double>(Clock::now() - start).count();
  return static_cast<double>(bytes_each) * threads / seconds;
}

int Run(int threads, size_t bytes_each, int rounds) {
  model::WeightArena arena;  // in huge pages, as weights
  std::vector<const Line*> buffers;
  for (int t = 0; t < threads; ++t) {
    std::byte* const bytes = arena.Allocate(bytes_each);
    std::memset(bytes, 1, bytes_each);
    buffers.push_back(reinterpret_cast<const Line*>(bytes));
  }
  std::vector<double> rates;
  for (int round = 0; round < rounds; ++round) {
    rates.push_back(StreamRead(threads, bytes_each, buffers) / 1e9);
  }
  std::sort(rates.begin(), rates.end());
  std::printf("{\"stream_read_gb_s\": %.3f, \"best_gb_s\": %.3f, \"threads\": %d}\n",
              rates[rates.size() / 2], rates.back(), threads);
  return 0;
}

}  // namespace
}  // namespace expertmesh

int main(int argc, char** argv) {
  const int threads = argc > 1 ? std::atoi(argv[1]) : 2;
  const int mib = argc > 2 ? std::atoi(argv[2]) : 256;
  const int rounds = argc > 3 ? std::atoi(argv[3]) : 9;
  if (threads < 1 || mib < 1 || rounds < 1) return 2;
  return expertmesh::Run(threads, static_cast<size_t>(mib) << 20, rounds);
}

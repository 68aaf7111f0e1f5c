#include "tests/bench/floors.h"

#include <immintrin.h>
#include <time.h>

#include <atomic>
#include <thread>
#include <utility>
#include <vector>

namespace expertmesh::bench {
namespace {

constexpr size_t kChains = 12;
constexpr size_t kRounds = 30000;

// Seconds that `body(thread)` takes on every thread of the pool at once: they wait for each other
// first, so that none does the work of one that is not awake yet.
template <class Body>
double Timed(base::ThreadPool& pool, const Body& body) {
  const auto threads = static_cast<size_t>(pool.threads());
  std::atomic<size_t> there{0};
  std::atomic<double> begin{0};
  pool.ParallelFor(threads, 1, [&](size_t first, size_t, int) {
    ++there;
    while (there.load() < threads) std::this_thread::yield();
    if (first == 0) begin = Now(pool);
    body(first);
  });
  return Now(pool) - begin.load();
}

// Independent chains of `step`, in registers: the barriers keep the compiler from merging them.
template <class V, class Step, size_t... I>
void Chains(V start, const Step& step, std::index_sequence<I...>) {
  V a[sizeof...(I)];
  ((a[I] = start), ...);
  asm volatile("" : "+v"(a[0]), "+v"(a[1]), "+v"(a[2]), "+v"(a[3]), "+v"(a[4]), "+v"(a[5]));
  asm volatile("" : "+v"(a[6]), "+v"(a[7]), "+v"(a[8]), "+v"(a[9]), "+v"(a[10]), "+v"(a[11]));
  for (size_t i = 0; i < kRounds; ++i) {
    ((a[I] = step(a[I])), ...);
    asm volatile("" : "+v"(a[0]));
  }
  asm volatile("" ::"v"(a[0]), "v"(a[1]), "v"(a[2]), "v"(a[3]), "v"(a[4]), "v"(a[5]));
  asm volatile("" ::"v"(a[6]), "v"(a[7]), "v"(a[8]), "v"(a[9]), "v"(a[10]), "v"(a[11]));
}

template <class V, class Step>
double Peak(base::ThreadPool& pool, V start, const Step& step, double operations) {
  const double seconds =
      Timed(pool, [&](size_t) { Chains(start, step, std::make_index_sequence<kChains>()); });
  return operations * kChains * kRounds * pool.threads() / seconds;
}

}  // namespace

double Now(const base::ThreadPool& pool) {
  timespec now = {};
  clock_gettime(pool.threads() == 1 ? CLOCK_THREAD_CPUTIME_ID : CLOCK_MONOTONIC, &now);
  return static_cast<double>(now.tv_sec) + static_cast<double>(now.tv_nsec) * 1e-9;
}

bool HasFloors() {
  return __builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("avx512bf16");
}

double Int8Peak(base::ThreadPool& pool) {
  __m512i w = _mm512_set1_epi8(3), x = _mm512_set1_epi8(2);
  asm volatile("" : "+v"(w), "+v"(x));
  return Peak(
      pool, _mm512_setzero_si512(), [&](__m512i a) { return _mm512_dpbusd_epi32(a, w, x); }, 128);
}

double Bf16Peak(base::ThreadPool& pool) {
  __m512 w = _mm512_setzero_ps(), x = _mm512_setzero_ps();
  asm volatile("" : "+v"(w), "+v"(x));
  return Peak(
      pool, _mm512_setzero_ps(),
      [&](__m512 a) {
        return _mm512_dpbf16_ps(a, reinterpret_cast<__m512bh&>(w), reinterpret_cast<__m512bh&>(x));
      },
      64);
}

double F32Peak(base::ThreadPool& pool) {
  __m512 w = _mm512_set1_ps(0.5f), x = _mm512_set1_ps(0.25f);
  asm volatile("" : "+v"(w), "+v"(x));
  return Peak(
      pool, _mm512_setzero_ps(), [&](__m512 a) { return _mm512_fmadd_ps(w, x, a); }, 32);
}

double StreamRead(base::ThreadPool& pool, std::span<const std::byte> memory) {
  const size_t part = memory.size() / static_cast<size_t>(pool.threads()) / 256 * 256;
  const double seconds = Timed(pool, [&](size_t i) {
    const std::byte* p = memory.data() + i * part;
    __m512i sum[4] = {};
    for (size_t at = 0; at < part; at += 256) {
      for (size_t j = 0; j < 4; ++j) {
        sum[j] = _mm512_add_epi32(sum[j], _mm512_loadu_si512(p + at + j * 64));
      }
    }
    asm volatile("" ::"v"(sum[0]), "v"(sum[1]), "v"(sum[2]), "v"(sum[3]));
  });
  return static_cast<double>(part) * pool.threads() / seconds;
}

}  // namespace expertmesh::bench

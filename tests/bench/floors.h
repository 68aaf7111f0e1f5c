// What this machine can do at best: the rooflines of benchmarks, taken in the same run as the
// figures.
#pragma once

#include <cstddef>
#include <span>

#include "services/base/thread_pool.h"

namespace expertmesh::bench {

/// Whether this CPU runs the floors below (AVX-512 with VNNI and BF16).
bool HasFloors();

/// Seconds now, for differences. One thread: those it computed, so that a busy machine disturbs
/// less (the caches and the memory it shares still do); several: of the wall.
double Now(const base::ThreadPool& pool);

/// Each takes about a fifth of a millisecond per thread and returns operations per second over all
/// threads of the pool (a multiply-add is two).
double Int8Peak(base::ThreadPool& pool);
double Bf16Peak(base::ThreadPool& pool);
double F32Peak(base::ThreadPool& pool);
/// Bytes per second of reading the whole of `memory` once.
double StreamRead(base::ThreadPool& pool, std::span<const std::byte> memory);

}  // namespace expertmesh::bench

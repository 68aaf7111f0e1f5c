// Kernels against what this machine can do: each figure beside its roofline, taken between the
// iterations of the same run. Threads: EXPERTMESH_BENCH_THREADS, else 2; seconds of each benchmark:
// EXPERTMESH_BENCH_SECONDS, else 0.3. Figures in docs/benchmarks.md.
#include <benchmark/benchmark.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "model/expert_slice.h"
#include "model/kernels/aligned.h"
#include "model/kernels/linear.h"
#include "model/wire_row.h"
#include "model/writer/converter.h"
#include "services/base/expert_node.h"
#include "tests/bench/floors.h"
#include "tests/support/temp_dir.h"
#include "tests/support/tiny_checkpoint.h"

namespace expertmesh::bench {
namespace {

using model::Dtype;

constexpr size_t kCacheBytes = size_t{160} << 20;  // more than any cache in use keeps
constexpr size_t kHidden = 1024;                   // of bench-1b
constexpr size_t kWidth = 512;
constexpr uint32_t kExperts = 64;
constexpr size_t kTopK = 16;

int Threads() {
  static const int threads = [] {
    const char* text = std::getenv("EXPERTMESH_BENCH_THREADS");
    return text == nullptr ? 2 : std::max(1, std::atoi(text));
  }();
  return threads;
}

double Seconds() {
  const char* text = std::getenv("EXPERTMESH_BENCH_SECONDS");
  return text == nullptr ? 0.3 : std::max(0.001, std::atof(text));
}

base::ThreadPool& Pool() {
  static base::ThreadPool pool(base::OnePerCpu(Threads()));
  return pool;
}

std::span<const std::byte> Memory() {
  static model::WeightArena arena;  // in huge pages, as weights
  static const std::span<const std::byte> memory = [] {
    std::byte* bytes = arena.Allocate(kCacheBytes);
    std::memset(bytes, 1, kCacheBytes);
    return std::span<const std::byte>(bytes, kCacheBytes);
  }();
  return memory;
}

double PeakOf(Dtype dtype) {
  return model::IsInt8Weight(dtype) ? Int8Peak(Pool()) : F32Peak(Pool());
}

double Median(std::vector<double> values) {
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

// The best time of the work beside its rooflines: operations at the peak, whose median is taken (it
// hardly depends on the load), and bytes at the best stream rate.
void Run(benchmark::State& state, Dtype dtype, double operations, double bytes,
         const std::function<void()>& work) {
  double stream = 0, best = 1e9;
  std::vector<double> peaks;
  work();
  for (auto _ : state) {
    peaks.push_back(PeakOf(dtype));
    // Also leaves no weights in a cache.
    if (bytes > 0) stream = std::max(stream, StreamRead(Pool(), Memory()));
    const double begin = Now(Pool());
    work();
    const double seconds = Now(Pool()) - begin;
    state.SetIterationTime(seconds);
    best = std::min(best, seconds);
  }
  const double peak = Median(std::move(peaks));
  const double of_peak = operations / peak / best;
  state.counters["Gop_s"] = operations / best / 1e9;
  state.counters["of_peak"] = of_peak;
  state.counters["peak_Gop_s"] = peak / 1e9;
  if (bytes == 0) return;
  state.counters["GB_s"] = bytes / best / 1e9;
  state.counters["of_stream"] = bytes / stream / best;
  state.counters["stream_GB_s"] = stream / 1e9;
}

// Weights [outputs, kHidden] that no cache holds, filled with anything finite.
struct Weights {
  model::WeightArena arena;
  model::PackedMatrix matrix;

  explicit Weights(Dtype dtype) {
    const model::PackedMatrix panel{16, kHidden, dtype, nullptr};
    matrix = arena.NewMatrix(kCacheBytes / panel.bytes() / 4 * 64, kHidden, dtype);
    // 2.6e-9, 2.6e-9, in int8 +49 − 128 times 0.16, in four bits small codes times as much, in fp8
    // 0.56 times what comes next.
    std::memset(matrix.panels, 0x31, matrix.bytes());
    if (dtype != Dtype::kFp8) return;
    for (size_t panel = 0; panel < matrix.panel_count(); ++panel) {
      auto* scales = reinterpret_cast<float*>(matrix.panels + panel * matrix.panel_bytes());
      for (size_t group = 0; group < kHidden / model::kFp8Group; ++group) {
        const size_t block = panel / 8 * 8 + group / 4;  // of 128 × 128, each with its own scale
        scales[group] = model::kFp8ScaleFactor * (0.01f + 1e-6f * static_cast<float>(block));
      }
    }
  }
};

// All outputs for state.range(0) rows: one row is bound by memory, many by the dot products.
void BM_Linear(benchmark::State& state, Dtype dtype, const char* profile_name) {
  const Weights weights(dtype);
  const auto rows = static_cast<size_t>(state.range(0));
  // Many rows: fewer outputs, so that one pass stays short.
  const size_t panels = std::min(weights.matrix.panel_count(), size_t{8192} / rows / 8 * 8 + 16);
  const model::PackedMatrix w = rows <= 16 ? weights.matrix : weights.matrix.Panels(0, panels);
  const model::Profile profile = *model::ParseProfile(profile_name);
  const model::Exec exec{*model::AvailableKernels().front(), profile, Pool()};
  std::vector<float> x(rows * kHidden);
  for (size_t i = 0; i < x.size(); ++i) x[i] = static_cast<float>(i % 101) - 50.0f;
  std::vector<float> y(rows * w.outputs);
  const double operations = 2.0 * static_cast<double>(rows * w.outputs * kHidden);
  Run(state, dtype, operations, rows <= 16 ? static_cast<double>(w.bytes()) : 0.0, [&] {
    model::Linear(exec, w, x.data(), kHidden, rows, y.data(), w.outputs);
    benchmark::DoNotOptimize(y.data());
  });
}

// One MoE layer of bench-1b, as a slice of all experts that are stored in this form.
const model::ExpertSlice& Slice(const std::string& profile, const std::string& form) {
  static const test_support::TempDir dir;
  static std::map<std::string, std::unique_ptr<model::ExpertSlice>> slices;
  if (slices.empty()) {
    model::Config config = test_support::TinyV3Config();
    config.hidden_size = kHidden;
    config.moe_intermediate_size = kWidth;
    config.n_routed_experts = kExperts;
    config.num_experts_per_tok = kTopK;
    config.n_group = config.topk_group = 1;
    config.num_hidden_layers = 2;
    config.torch_dtype = "bfloat16";
    test_support::WriteTinyModel(dir / "bf16", config);
  }
  auto& slice = slices[profile + form];
  if (slice == nullptr) {
    if (form != "bf16") {
      model::ConvertOptions convert;
      convert.from = dir / "bf16";
      convert.to = dir / form;
      convert.format = *model::ParseTargetFormat(form);
      if (!model::ConvertModel(convert).ok()) std::abort();
    }
    model::ExpertSlice::Options options;
    options.directory = dir / form;
    options.profile = profile;
    options.experts = {{0, kExperts}};
    auto loaded = model::ExpertSlice::Load(options);
    if (!loaded.ok()) {
      std::fprintf(stderr, "%s\n", loaded.status().ToString().c_str());
      std::exit(1);
    }
    slice = *std::move(loaded);
  }
  return *slice;
}

// state.range(0) tokens of top 16 of 64 random experts: gather, gate, up, SwiGLU, down, combine.
void BM_Experts(benchmark::State& state, Dtype dtype, const char* profile, const char* form) {
  const model::ExpertSlice& slice = Slice(profile, form);
  const auto rows = static_cast<size_t>(state.range(0));
  std::mt19937 random(7);
  const Dtype wire = slice.profile().wire;
  const size_t row_bytes = kHidden * model::DtypeBytes(wire);
  model::AlignedBytes bytes;
  std::byte* const sent = bytes.Resize(rows * row_bytes);
  std::vector<float> scales;
  std::vector<float> row(kHidden);
  for (size_t r = 0; r < rows; ++r) {
    for (float& x : row) x = static_cast<float>(random() % 256) / 256.0f - 0.5f;
    const float scale = model::ToWire(wire, row, sent + r * row_bytes);
    if (wire == Dtype::kInt8Row) scales.push_back(scale);
  }
  std::vector<uint32_t> offsets = {0};
  std::vector<uint16_t> ids;
  std::vector<base::PartialNode> partials;
  std::vector<bool> used(kExperts);
  for (uint32_t r = 0; r < rows; ++r) {
    std::vector<uint16_t> all(kExperts);
    std::iota(all.begin(), all.end(), uint16_t{0});
    std::shuffle(all.begin(), all.end(), random);
    std::sort(all.begin(), all.begin() + kTopK);
    ids.insert(ids.end(), all.begin(), all.begin() + kTopK);
    for (size_t i = 0; i < kTopK; ++i) used[all[i]] = true;
    offsets.push_back(static_cast<uint32_t>(ids.size()));
    partials.push_back({r, 0, static_cast<uint16_t>(base::RootLevel(kExperts))});
  }
  const std::vector<float> weights(ids.size(), 0.1f);
  std::vector<float> sums(rows * kHidden);
  const model::ExpertBatch batch{1, rows, wire, sent, offsets, ids, weights, partials, scales};
  const double operations = 2.0 * 3 * static_cast<double>(ids.size() * kHidden * kWidth);
  const double touched = static_cast<double>(std::count(used.begin(), used.end(), true));
  const double layer = static_cast<double>(slice.weight_bytes());
  Run(state, dtype, operations, rows <= 16 ? layer * touched / kExperts : 0.0, [&] {
    slice.Compute(batch, Pool(), sums);
    benchmark::DoNotOptimize(sums.data());
  });
}

}  // namespace
}  // namespace expertmesh::bench

int main(int argc, char** argv) {
  using namespace expertmesh::bench;
  if (!HasFloors()) {
    std::fprintf(stderr, "kernels_bench: this CPU has no AVX-512 with VNNI and BF16\n");
    return 1;
  }
  using benchmark::RegisterBenchmark;
  const auto timed = [](benchmark::internal::Benchmark* b, std::initializer_list<int64_t> rows) {
    b->UseManualTime()->Unit(benchmark::kMicrosecond)->MinTime(Seconds());
    for (const int64_t r : rows) b->Arg(r);
  };
  timed(RegisterBenchmark("linear_int8", BM_Linear, Dtype::kInt8, "int8"),
        {1, 2, 4, 8, 12, 16, 32, 64, 128, 512});
  timed(RegisterBenchmark("linear_bf16", BM_Linear, Dtype::kBf16, "bf16"),
        {1, 2, 4, 8, 16, 64, 512});
  timed(RegisterBenchmark("linear_f32", BM_Linear, Dtype::kF32, "exact-f32"), {1, 16, 512});
  timed(RegisterBenchmark("linear_fp8", BM_Linear, Dtype::kFp8, "bf16"), {1, 4, 16, 64, 512});
  timed(RegisterBenchmark("linear_int4", BM_Linear, Dtype::kInt4, "int8"), {1, 4, 16, 64, 512});
  timed(RegisterBenchmark("linear_fp4", BM_Linear, Dtype::kFp4, "int8"), {1, 4, 16, 64, 512});
  timed(RegisterBenchmark("experts_int8", BM_Experts, Dtype::kInt8, "int8", "bf16"),
        {1, 4, 16, 64, 128, 512});
  timed(RegisterBenchmark("experts_int4", BM_Experts, Dtype::kInt4, "int8", "int4"),
        {1, 4, 16, 64, 512});
  timed(RegisterBenchmark("experts_fp4", BM_Experts, Dtype::kFp4, "int8", "fp4"),
        {1, 4, 16, 64, 512});
  timed(RegisterBenchmark("experts_bf16", BM_Experts, Dtype::kBf16, "bf16", "bf16"), {1, 16, 512});
  timed(RegisterBenchmark("experts_fp8", BM_Experts, Dtype::kFp8, "bf16", "fp8-128"), {1, 16, 512});
  benchmark::Initialize(&argc, argv);
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}

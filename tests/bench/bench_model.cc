// What `./mesh bench` asks of the model library alone, in this process. Prints JSON lines.
//
//   expertmesh-bench-model distinct MODEL PROFILE THREADS REQUESTS
//     Distinct experts per MoE layer and decode step, over the lanes of a file of requests (see
//     bench_client.cc): prompts first, then one step per forced token, all lanes in each.
//   expertmesh-bench-model logits MODEL PROFILE THREADS REQUESTS FILE
//     F32 logits of every token of the lanes into FILE, [tokens, vocab] lane by lane.
//   expertmesh-bench-model context PROFILE THREADS ROUNDS LENGTH...
//     Milliseconds of a decode step of two layers of `bench-1b-full` at these context lengths, with
//     random lane state: layers that index for themselves ("full"), full and shared, and dense.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <iostream>
#include <set>
#include <sstream>
#include <string>
#include <vector>

#include "model/expert_slice.h"
#include "model/local_experts.h"
#include "model/runtime.h"
#include "model/writer/model_writer.h"
#include "model/writer/presets.h"
#include "tests/bench/floors.h"
#include "tests/support/temp_dir.h"

namespace expertmesh {
namespace {

using Clock = std::chrono::steady_clock;

constexpr size_t kChunkRows = 256;

template <class T>
T OrDie(absl::StatusOr<T> value) {
  if (value.ok()) return *std::move(value);
  std::fprintf(stderr, "%s\n", value.status().ToString().c_str());
  std::exit(1);
}

// Counts the experts that a step's rows chose, and passes the call on.
class CountingExperts final : public model::ExpertBackend {
 public:
  explicit CountingExperts(model::ExpertBackend& inner) : inner_(inner) {}
  void Begin(const model::MoeCall& call) override {
    distinct_ += std::set<uint16_t>(call.expert_ids.begin(), call.expert_ids.end()).size();
    ++calls_;
    inner_.Begin(call);
  }
  void Finish(uint32_t part, std::span<float> out, std::span<uint8_t> alive) override {
    inner_.Finish(part, out, alive);
  }
  double Mean() const { return static_cast<double>(distinct_) / static_cast<double>(calls_); }

 private:
  model::ExpertBackend& inner_;
  size_t distinct_ = 0;
  size_t calls_ = 0;
};

struct Lane {
  std::vector<uint32_t> tokens;  // prompt, then forced
  size_t prompt = 0;
  std::unique_ptr<model::LaneState> state;
};

std::vector<Lane> ReadLanes(const char* path) {
  std::vector<Lane> lanes;
  std::ifstream file(path);
  std::string line;
  while (std::getline(file, line)) {
    std::istringstream in(line);
    double at_ms = 0;
    size_t max_tokens = 0;
    size_t forced = 0;
    Lane& lane = lanes.emplace_back();
    in >> at_ms >> max_tokens >> lane.prompt;
    lane.tokens.resize(lane.prompt);
    for (uint32_t& token : lane.tokens) in >> token;
    in >> forced;
    lane.tokens.resize(lane.prompt + forced);
    for (size_t i = lane.prompt; i < lane.tokens.size(); ++i) in >> lane.tokens[i];
    if (!in || lane.prompt == 0) {
      std::fprintf(stderr, "%s: line %zu is no request\n", path, lanes.size());
      std::exit(2);
    }
  }
  return lanes;
}

// All experts and all lanes of a file of requests in this process.
class Runner {
 public:
  Runner(const char* directory, const char* profile, int threads, const char* requests)
      : pool_(threads),
        model_(OrDie(model::AttentionModel::Load({.directory = directory, .profile = profile}))) {
    model::ExpertSlice::Options slice;
    slice.directory = directory;
    slice.profile = profile;
    slice.experts = {{0, model_->config().n_routed_experts}};
    slice_ = OrDie(model::ExpertSlice::Load(slice));
    local_ = std::make_unique<model::LocalExperts>(*slice_, pool_);
    lanes_ = ReadLanes(requests);
    size_t pages = 0;
    for (const Lane& lane : lanes_) pages += lane.tokens.size() / model::kPagePositions + 1;
    pages_ = std::make_unique<model::PagePool>(model_->lane_state(), pages);
    for (Lane& lane : lanes_) {
      lane.state = std::make_unique<model::LaneState>(*pages_);
      if (!lane.state->Reserve(lane.tokens.size())) std::exit(1);
    }
  }

  int Distinct() {
    CountingExperts counting(*local_);
    std::vector<model::StepRow> rows;
    size_t steps = 0;
    for (Lane& lane : lanes_) {
      RunChunks(lane, lane.prompt, false, [](const auto&) {});
      steps = std::max(steps, lane.tokens.size() - lane.prompt);
    }
    for (size_t step = 0; step < steps; ++step) {
      rows.clear();
      for (Lane& lane : lanes_) {
        const size_t position = lane.prompt + step;
        if (position < lane.tokens.size()) rows.push_back(RowOf(lane, position, true));
      }
      model_->RunStep(rows, counting, pool_);
    }
    std::printf("{\"lanes\": %zu, \"steps\": %zu, \"distinct_experts\": %.3f}\n", lanes_.size(),
                steps, counting.Mean());
    return 0;
  }

  int Logits(const char* path) {
    std::ofstream out(path, std::ios::binary | std::ios::trunc);
    for (Lane& lane : lanes_) {
      RunChunks(lane, lane.tokens.size(), true, [&](const std::vector<float>& logits) {
        out.write(reinterpret_cast<const char*>(logits.data()),
                  static_cast<std::streamsize>(logits.size() * sizeof(float)));
      });
    }
    out.close();
    return out ? 0 : 1;
  }

 private:
  static model::StepRow RowOf(Lane& lane, size_t position, bool wants_logits) {
    model::StepRow row;
    row.lane = lane.state.get();
    row.token = lane.tokens[position];
    row.position = position;
    row.wants_logits = wants_logits;
    row.previous = std::span(lane.tokens).first(position);
    return row;
  }

  // The first `count` tokens of a lane; `use` gets the logits of each chunk.
  template <class Use>
  void RunChunks(Lane& lane, size_t count, bool wants_logits, const Use& use) {
    for (size_t begin = 0; begin < count; begin += kChunkRows) {
      std::vector<model::StepRow> rows;
      for (size_t i = begin; i < std::min(begin + kChunkRows, count); ++i) {
        rows.push_back(RowOf(lane, i, wants_logits));
      }
      const model::StepResult result = model_->RunStep(rows, *local_, pool_);
      if (std::count(result.alive.begin(), result.alive.end(), 0) > 0) std::exit(1);
      use(result.logits);
    }
  }

  base::ThreadPool pool_;
  std::unique_ptr<model::AttentionModel> model_;
  std::unique_ptr<model::ExpertSlice> slice_;
  std::unique_ptr<model::LocalExperts> local_;
  std::unique_ptr<model::PagePool> pages_;  // outlives the lanes
  std::vector<Lane> lanes_;
};

// Two layers with the attention of bench-1b-full and little else.
model::Preset ContextPreset(const std::vector<bool>& full) {
  model::Preset preset = *model::FindPreset("bench-1b-full");
  model::Config& config = preset.config;
  config.num_hidden_layers = 2;
  config.engram.reset();
  config.hc_mult = 1;
  config.vocab_size = 512;
  config.intermediate_size = 64;
  config.moe_intermediate_size = 32;
  config.n_routed_experts = 16;
  if (full.empty()) {
    config.indexer.reset();
  } else {
    config.indexer->full = full;
  }
  return preset;
}

// Finite bf16 values of both signs, magnitudes in [0.5, 1).
void FillRandom(std::byte* out, size_t bytes, uint64_t& state) {
  for (size_t i = 0; i + 8 <= bytes; i += 8) {
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    const uint64_t four = (state & 0x807F807F807F807FULL) | 0x3F003F003F003F00ULL;
    std::memcpy(out + i, &four, 8);
  }
}

class ContextBench {
 public:
  ContextBench(const std::vector<bool>& full, const std::string& profile,
               const base::ComputeThreads& threads)
      : pool_(threads) {
    model::WriteOptions write;
    write.directory = dir_ / "model";
    const absl::Status status = model::WriteModel(ContextPreset(full), write);
    if (!status.ok()) {
      std::fprintf(stderr, "%s\n", status.ToString().c_str());
      std::exit(1);
    }
    model_ = OrDie(model::AttentionModel::Load({.directory = write.directory, .profile = profile}));
    model::ExpertSlice::Options slice;
    slice.directory = write.directory;
    slice.profile = profile;
    slice.experts = {{0, model_->config().n_routed_experts}};
    slice_ = OrDie(model::ExpertSlice::Load(slice));
    experts_ = std::make_unique<model::LocalExperts>(*slice_, pool_);
  }

  /// Median milliseconds of a step whose one row sees `length` positions.
  double StepMs(size_t length, int rounds) {
    model::PagePool pages(model_->lane_state(), length / model::kPagePositions + 1);
    model::LaneState lane(pages);
    if (!lane.Reserve(length)) std::exit(1);
    uint64_t state = 88172645463325252ULL;
    const auto& streams = model_->lane_state().streams;
    for (size_t s = 0; s < streams.size(); ++s) {
      const size_t bytes = size_t{streams[s].bytes_per_position} * model::kPagePositions;
      for (size_t layer = 0; layer < streams[s].layers; ++layer) {
        for (size_t i = 0; i < length; i += model::kPagePositions) {
          FillRandom(lane.At(s, layer, i), bytes, state);
        }
      }
    }
    model::StepRow row;
    row.lane = &lane;
    row.token = 7;
    row.position = length - 1;
    row.wants_logits = true;
    std::vector<double> times;
    for (int round = -1; round < rounds; ++round) {
      const Clock::time_point start = Clock::now();
      const model::StepResult result = model_->RunStep({&row, 1}, *experts_, pool_);
      const double ms = std::chrono::duration<double, std::milli>(Clock::now() - start).count();
      if (result.alive[0] == 0) std::exit(1);
      if (round >= 0) times.push_back(ms);  // the first one warms up
    }
    std::sort(times.begin(), times.end());
    return times[times.size() / 2];
  }

 private:
  test_support::TempDir dir_;
  base::ThreadPool pool_;
  std::unique_ptr<model::AttentionModel> model_;
  std::unique_ptr<model::ExpertSlice> slice_;
  std::unique_ptr<model::LocalExperts> experts_;
};

// Multiply-adds in f32 that the threads can do at present, two operations each; 0 where the floors
// do not run.
double F32PeakOf(base::ThreadPool& pool) {
  std::vector<double> rates = {0};
#ifdef EXPERTMESH_FLOORS
  if (bench::HasFloors()) {
    rates.clear();
    for (int i = 0; i < 25; ++i) rates.push_back(bench::F32Peak(pool));
  }
#endif
  std::sort(rates.begin(), rates.end());
  return rates[rates.size() / 2];
}

int Context(const char* profile, int threads, int rounds, const std::vector<size_t>& lengths) {
  const std::pair<const char*, std::vector<bool>> kinds[] = {
      {"full_full", {true, true}}, {"full_shared", {true, false}}, {"dense_dense", {}}};
  const base::ComputeThreads bound = base::OnePerCpu(threads);  // asked once: it binds this thread
  for (const auto& [name, full] : kinds) {
    ContextBench bench(full, profile, bound);
    base::ThreadPool pool(bound);
    std::printf("{\"layers\": \"%s\", \"f32_gop_s\": %.4f}\n", name, F32PeakOf(pool) / 1e9);
    for (const size_t length : lengths) {
      std::printf("{\"layers\": \"%s\", \"length\": %zu, \"step_ms\": %.4f}\n", name, length,
                  bench.StepMs(length, rounds));
      std::fflush(stdout);
    }
  }
  return 0;
}

}  // namespace
}  // namespace expertmesh

int main(int argc, char** argv) {
  const std::string what = argc > 1 ? argv[1] : "";
  if (what == "distinct" && argc == 6) {
    return expertmesh::Runner(argv[2], argv[3], std::atoi(argv[4]), argv[5]).Distinct();
  }
  if (what == "logits" && argc == 7) {
    return expertmesh::Runner(argv[2], argv[3], std::atoi(argv[4]), argv[5]).Logits(argv[6]);
  }
  if (what == "context" && argc > 5) {
    std::vector<size_t> lengths;
    for (int i = 5; i < argc; ++i) lengths.push_back(std::strtoull(argv[i], nullptr, 10));
    return expertmesh::Context(argv[2], std::atoi(argv[3]), std::atoi(argv[4]), lengths);
  }
  std::cerr << "usage: " << argv[0] << " distinct MODEL PROFILE THREADS REQUESTS\n       "
            << argv[0] << " context PROFILE THREADS ROUNDS LENGTH...\n";
  return 2;
}

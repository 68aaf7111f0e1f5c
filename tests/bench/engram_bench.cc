// Rows of the memory per second: a dense array, a mapped segment without and with checksums, the
// record, and a store process over gRPC, in one run. With a model directory as argument also tokens
// per second with rows of a store process over rows of tables in this process.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <future>
#include <numeric>
#include <random>
#include <thread>

#include "attention-worker/engram_client.h"
#include "engram-store/engram_tables.h"
#include "model/local_experts.h"
#include "model/local_memory.h"
#include "model/runtime.h"
#include "model/writer/engram_tables.h"
#include "model/writer/model_writer.h"
#include "model/writer/presets.h"
#include "services/rpc/channel.h"
#include "services/rpc/identity.h"
#include "tests/support/child_process.h"
#include "tests/support/temp_dir.h"

namespace expertmesh {
namespace {

using Clock = std::chrono::steady_clock;
namespace pb = engram::v1;

constexpr size_t kRowsOfAStep = 12288;  // 256 tokens with 48 rows each
constexpr size_t kRowsOfAToken = 48;
constexpr size_t kAhead = 16;
constexpr int kRounds = 5;
constexpr int kTokenRounds = 9;

double SecondsSince(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

template <class T>
T OrDie(absl::StatusOr<T> value) {
  if (value.ok()) return *std::move(value);
  std::fprintf(stderr, "%s\n", value.status().ToString().c_str());
  std::exit(1);
}

void OrDie(const absl::Status& status) {
  if (status.ok()) return;
  std::fprintf(stderr, "%s\n", status.ToString().c_str());
  std::exit(1);
}

double Median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

/// Tables as V4.1's: 256 columns, fp8 with scales, 264 bytes a row.
void WriteTables(const std::string& directory) {
  model::Preset preset = *model::FindPreset("tiny");
  preset.fp8_tables = true;
  preset.config.engram->head_dim = 256;
  preset.config.engram->vocab_size = 250'000;
  preset.config.engram->num_embeddings = model::EngramRowCounts(*preset.config.engram);
  model::WriteOptions options;
  options.directory = directory;
  options.threads = static_cast<int>(std::thread::hardware_concurrency());
  OrDie(model::WriteModel(preset, options));
}

struct StoreProcess {
  StoreProcess(const std::string& directory, const test_support::TempDir& dir,
               const std::string& name)
      : process({"expertmesh-engram-store", "--model", directory, "--served-model-name", "bench",
                 "--data", dir / (name + "-data"), "--listen", "unix:" + (dir / (name + ".sock")),
                 "--announce-file", dir / (name + ".json")},
                dir / (name + ".log")),
        address("unix:" + (dir / (name + ".sock"))) {
    if (!test_support::WaitForFile(dir / (name + ".json"), std::chrono::minutes(10))) {
      std::fprintf(stderr, "%s\n", process.Log().c_str());
      std::exit(1);
    }
  }
  test_support::ChildProcess process;
  const std::string address;
};

// Batches of random ids through `read`, each round timed; the best of a few rounds' medians says
// what the way can do while others use the machine.
template <class Read>
double RowsPerSecond(uint64_t rows, size_t batch, const Read& read) {
  std::mt19937_64 random(7);
  std::vector<uint64_t> ids(batch);
  std::vector<double> rates;
  for (int round = 0; round < kRounds; ++round) {
    size_t done = 0;
    double seconds = 0;
    while (seconds < 0.4) {
      for (uint64_t& id : ids) id = random() % rows;
      const Clock::time_point start = Clock::now();
      read(ids);
      seconds += SecondsSince(start);
      done += batch;
    }
    rates.push_back(static_cast<double>(done) / seconds);
  }
  return Median(rates);
}

struct GrpcReader {
  explicit GrpcReader(const std::string& address)
      : stub(pb::EngramService::NewStub(rpc::MakeChannel(address))) {}
  void operator()(std::span<const uint64_t> ids) const {
    pb::LookupBatchRequest request;
    request.mutable_model()->set_model("bench");
    pb::RowSet* set = request.add_sets();
    set->set_layer(1);
    set->mutable_row_ids()->Add(ids.begin(), ids.end());
    pb::LookupBatchResponse response;
    grpc::ClientContext context;
    rpc::PrepareClient(context, {}, std::chrono::seconds(60));
    if (!stub->LookupBatch(&context, request, &response).ok() ||
        response.blocks(0).rows().size() % ids.size() != 0) {
      std::exit(1);
    }
  }
  std::unique_ptr<pb::EngramService::Stub> stub;
};

void MeasureRows() {
  const test_support::TempDir dir;
  const std::string directory = dir / "model";
  WriteTables(directory);
  const StoreProcess process(directory, dir, "store");
  base::SteadyClock clock;
  telemetry::Metrics metrics("engram_store");
  engram_store::EngramTables::Options options;
  options.data_directory = dir / "data";
  const auto tables = OrDie(engram_store::EngramTables::Open(options, clock, metrics));
  OrDie(tables->Import(directory, "bench", "r", [](uint64_t, uint64_t) {}));
  const auto served = OrDie(tables->Find({"bench", "r", ""}));
  const auto& shape = served->record.shape;
  const uint64_t rows = shape.Find(1)->rows;
  const size_t bytes = shape.row_bytes();
  std::vector<std::byte> out(kRowsOfAStep * bytes);
  std::vector<std::byte> dense(rows * bytes);
  std::vector<uint64_t> all(rows);
  std::iota(all.begin(), all.end(), 0);
  OrDie(served->tables.at(1)->Read(all, dense.data()));

  std::printf("%llu rows of %zu bytes in one table (%.0f MB), random ids, one thread\n",
              static_cast<unsigned long long>(rows), bytes,
              static_cast<double>(rows * bytes) / 1e6);
  double floor = 0;
  const auto report = [&](const char* what, double rate) {
    if (floor == 0) floor = rate;
    std::printf("%-52s %9.3f M rows/s  %6.3f of the array\n", what, rate / 1e6, rate / floor);
    std::fflush(stdout);
  };
  report("dense array, prefetched", RowsPerSecond(rows, kRowsOfAStep, [&](const auto& ids) {
           for (size_t i = 0; i < ids.size(); ++i) {
             if (i + kAhead < ids.size()) {
               const std::byte* ahead = dense.data() + ids[i + kAhead] * bytes;
               for (size_t at = 0; at < bytes; at += 64) __builtin_prefetch(ahead + at);
             }
             std::memcpy(out.data() + i * bytes, dense.data() + ids[i] * bytes, bytes);
           }
         }));
  const auto& segment = static_cast<const engram_store::SegmentTable&>(*served->tables.at(1));
  report("mapped segment, checksums not looked at",
         RowsPerSecond(rows, kRowsOfAStep,
                       [&](const auto& ids) { segment.ReadUnchecked(ids, out.data()); }));
  report("mapped segment, every row checked",
         RowsPerSecond(rows, kRowsOfAStep,
                       [&](const auto& ids) { OrDie(segment.Read(ids, out.data())); }));
  const auto none = std::make_shared<engram_store::HotRows>(0, bytes, metrics);
  const engram_store::ColdTable record(tables->db(), served->record, 1, 1, none);
  report("RocksDB directly, every row checked",
         RowsPerSecond(rows, kRowsOfAStep,
                       [&](const auto& ids) { OrDie(record.Read(ids, out.data())); }));
  report("store process over gRPC, 12288 rows a call",
         RowsPerSecond(rows, kRowsOfAStep, GrpcReader(process.address)));
  report("store process over gRPC, 768 rows a call",
         RowsPerSecond(rows, 16 * kRowsOfAToken, GrpcReader(process.address)));
  report("store process over gRPC, 48 rows a call",
         RowsPerSecond(rows, kRowsOfAToken, GrpcReader(process.address)));
}

// Decoding lanes of random tokens; every way of getting rows sees the same ones.
class Decoder {
 public:
  Decoder(const model::AttentionModel& model, model::ExpertBackend& experts, base::ThreadPool& pool,
          size_t lanes, size_t steps)
      : model_(model),
        experts_(experts),
        pool_(pool),
        pages_(model.lane_state(), lanes * (steps / model::kPagePositions + 1)),
        steps_(steps),
        tokens_(lanes) {}

  /// Tokens per second.
  double Run(uint64_t seed, model::MemoryBackend& memory,
             const std::function<void()>& before_step) {
    std::mt19937_64 random(seed);
    std::vector<std::unique_ptr<model::LaneState>> states;
    for (auto& tokens : tokens_) {
      tokens.resize(steps_);
      for (uint32_t& token : tokens) token = random() % model_.config().vocab_size;
      states.push_back(std::make_unique<model::LaneState>(pages_));
      if (!states.back()->Reserve(steps_)) std::exit(1);
    }
    const Clock::time_point start = Clock::now();
    for (size_t step = 0; step < steps_; ++step) {
      std::vector<model::StepRow> rows(tokens_.size());
      for (size_t lane = 0; lane < rows.size(); ++lane) {
        rows[lane].lane = states[lane].get();
        rows[lane].token = tokens_[lane][step];
        rows[lane].position = step;
        rows[lane].wants_logits = true;
        rows[lane].previous = std::span(tokens_[lane]).first(step);
      }
      before_step();
      const model::StepResult result = model_.RunStep(rows, experts_, pool_, nullptr, &memory);
      if (std::count(result.alive.begin(), result.alive.end(), 0) > 0) std::exit(1);
    }
    return static_cast<double>(steps_ * tokens_.size()) / SecondsSince(start);
  }

 private:
  const model::AttentionModel& model_;
  model::ExpertBackend& experts_;
  base::ThreadPool& pool_;
  model::PagePool pages_;
  const size_t steps_;
  std::vector<std::vector<uint32_t>> tokens_;
};

std::shared_ptr<const attention_worker::MemoryPin> PinCurrent(
    attention_worker::EngramStores& stores) {
  std::promise<std::shared_ptr<const attention_worker::MemoryPin>> pinned;
  stores.Pin("", [&](auto pin) { pinned.set_value(OrDie(std::move(pin))); });
  return pinned.get_future().get();
}

void MeasureTokens(const std::string& directory) {
  const test_support::TempDir dir;
  const StoreProcess process(directory, dir, "store");
  const int threads = static_cast<int>(std::thread::hardware_concurrency());
  model::AttentionModel::Options attention;
  attention.directory = directory;
  attention.local_memory = false;
  const auto model = OrDie(model::AttentionModel::Load(attention));
  model::ExpertSlice::Options slice;
  slice.directory = directory;
  slice.experts = {{0, model->config().n_routed_experts}};
  const auto experts = OrDie(model::ExpertSlice::Load(slice));
  base::ThreadPool pool(threads);
  model::LocalExperts backend(*experts, pool);
  const auto local = OrDie(model::LocalMemory::Load(directory, model->config()));
  base::SteadyClock clock;
  telemetry::Metrics metrics("attention_worker");
  attention_worker::EngramStores stores({.model = "bench", .revision = "", .worker = "bench"});
  stores.SetStores({{"store", 1, process.address}});
  const auto pin = PinCurrent(stores);
  // No cache: every row comes from the store, in every step.
  attention_worker::EngramClient remote(stores, {.cache_rows = 0}, clock, metrics);

  for (const size_t lanes : {size_t{1}, size_t{8}}) {
    Decoder decoder(*model, backend, pool, lanes, lanes == 1 ? 24 : 8);
    std::vector<double> ratios;
    std::vector<double> ours;
    std::vector<double> theirs;
    for (uint64_t round = 0; round < kTokenRounds; ++round) {
      theirs.push_back(decoder.Run(round, *local, [] {}));
      ours.push_back(decoder.Run(round, remote, [&] { remote.BeginStep({{lanes, pin}}); }));
      ratios.push_back(ours.back() / theirs.back());
    }
    std::printf(
        "%zu lanes: %.2f tok/s with rows of a store process, %.2f with rows of this "
        "process; ratio %.3f (medians of %d alternated runs)\n",
        lanes, Median(ours), Median(theirs), Median(ratios), kTokenRounds);
    std::fflush(stdout);
  }
}

}  // namespace
}  // namespace expertmesh

int main(int argc, char** argv) {
  if (argc > 1) expertmesh::MeasureTokens(argv[1]);
  expertmesh::MeasureRows();
  return 0;
}

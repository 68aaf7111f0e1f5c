// Rows of the memory per second, as stored and as floats for a step: a dense array, a mapped
// segment without and with checksums, RocksDB, the record, and a store process whose files the
// caller maps or that it asks over gRPC, in one run. With a model directory as argument also tokens
// per second with rows of a store process, both ways, over rows of tables in this process.
#include <algorithm>
#include <array>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <functional>
#include <future>
#include <numeric>
#include <random>
#include <thread>

#include "absl/strings/str_cat.h"
#include "attention-worker/engram_client.h"
#include "engram-store/engram_tables.h"
#include "model/formats/table_row.h"
#include "model/local_experts.h"
#include "model/local_memory.h"
#include "model/runtime.h"
#include "model/writer/engram_tables.h"
#include "model/writer/model_writer.h"
#include "model/writer/presets.h"
#include "services/rpc/channel.h"
#include "services/rpc/identity.h"
#include "tests/engram-store/rocksdb/multi_get_table.h"
#include "tests/support/child_process.h"
#include "tests/support/temp_dir.h"

namespace expertmesh {
namespace {

using Clock = std::chrono::steady_clock;
namespace pb = engram::v1;

constexpr size_t kRowsOfAStep = 12288;  // 256 tokens with 48 rows each
constexpr size_t kRowsOfAToken = 48;
constexpr size_t kColumns = 24;  // of them in one layer
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

/// A way of getting rows: `read` takes `batch` ids a call.
struct Way {
  std::string name;
  size_t batch = 0;
  std::function<void(std::span<const uint64_t>)> read;
};

// Random ids through all ways in turn, round by round, so that they share what else the machine
// does. Prints medians of the rates and of their ratios to the first way in the same round; returns
// the rates.
std::vector<double> Compare(uint64_t rows, const std::vector<Way>& ways) {
  std::mt19937_64 random(7);
  std::vector<std::vector<double>> rates(ways.size());
  std::vector<std::vector<double>> ratios(ways.size());
  for (int round = 0; round < kRounds; ++round) {
    for (size_t w = 0; w < ways.size(); ++w) {
      std::vector<uint64_t> ids(ways[w].batch);
      size_t done = 0;
      double seconds = 0;
      while (seconds < 0.3) {
        for (uint64_t& id : ids) id = random() % rows;
        const Clock::time_point start = Clock::now();
        ways[w].read(ids);
        seconds += SecondsSince(start);
        done += ids.size();
      }
      rates[w].push_back(static_cast<double>(done) / seconds);
      ratios[w].push_back(rates[w].back() / rates[0].back());
    }
  }
  std::vector<double> medians;
  for (size_t w = 0; w < ways.size(); ++w) {
    medians.push_back(Median(rates[w]));
    std::printf("%-62s %8.3f M rows/s  %6.3f of the array\n", ways[w].name.c_str(),
                medians[w] / 1e6, Median(ratios[w]));
  }
  std::fflush(stdout);
  return medians;
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
  std::shared_ptr<pb::EngramService::Stub> stub;
};

std::shared_ptr<const attention_worker::MemoryPin> PinCurrent(
    attention_worker::EngramStores& stores) {
  std::promise<std::shared_ptr<const attention_worker::MemoryPin>> pinned;
  stores.Pin("", [&](auto pin) { pinned.set_value(OrDie(std::move(pin))); });
  return pinned.get_future().get();
}

/// A worker's side of a store process; every row comes from the store in every step, since nothing
/// is cached.
struct Worker {
  Worker(const StoreProcess& process, bool map)
      : stores({.model = "bench", .revision = "", .worker = "bench", .map_segments = map}),
        client(stores, {.cache_rows = 0}, clock, metrics) {
    stores.SetStores({{"store", 1, process.address}});
    pin = PinCurrent(stores);
    if ((pin->mapped != nullptr) == map) return;
    std::fprintf(stderr, "the store's files are not read as asked\n");
    std::exit(1);
  }
  /// What a step does for the rows of one layer: from ids to floats.
  void Step(std::span<const uint64_t> ids, size_t width, std::span<float> out) {
    const model::MemoryCall call{ids.size() / kColumns, kColumns, width, {{1, ids}}};
    client.BeginStep({{call.row_count, pin}});
    client.Begin(call);
    std::vector<uint8_t> alive(call.row_count, 1);
    client.Finish(1, out, alive);
    if (std::count(alive.begin(), alive.end(), 0) > 0) std::exit(1);
  }
  base::SteadyClock clock;
  telemetry::Metrics metrics{"attention_worker"};
  attention_worker::EngramStores stores;
  attention_worker::EngramClient client;
  std::shared_ptr<const attention_worker::MemoryPin> pin;
};

constexpr std::array<size_t, 3> kBatches = {kRowsOfAStep, 16 * kRowsOfAToken, kRowsOfAToken};

void PrefetchDense(const std::vector<std::byte>& dense, size_t bytes, std::span<const uint64_t> ids,
                   size_t i) {
  if (i + kAhead >= ids.size()) return;
  const std::byte* ahead = dense.data() + ids[i + kAhead] * bytes;
  for (size_t at = 0; at < bytes; at += 64) __builtin_prefetch(ahead + at);
}

// Rows as they are stored, from where they lie into one run of bytes.
void MeasureStored(const std::vector<std::byte>& dense, const engram_store::ServedVersion& served,
                   const engram_store::MultiGetTable& multi_get,
                   const engram_store::EngramTables& tables, const StoreProcess& process) {
  using Ids = std::span<const uint64_t>;
  const size_t bytes = served.record.shape.row_bytes();
  std::vector<std::byte> out(kRowsOfAStep * bytes);
  const model::MappedSegment& segment = *served.tables.at(1)->segment();
  const Worker mapped(process, true);
  const model::MappedSegment& theirs = *mapped.pin->mapped->Find(1);
  telemetry::Metrics metrics("engram_store");
  const auto none = std::make_shared<engram_store::HotRows>(0, bytes, metrics);
  const engram_store::ColdTable record(tables.db(), served.record, 1, 1, none);
  std::vector<Way> ways = {{"dense array, prefetched", kRowsOfAStep,
                            [&](Ids ids) {
                              for (size_t i = 0; i < ids.size(); ++i) {
                                PrefetchDense(dense, bytes, ids, i);
                                std::memcpy(out.data() + i * bytes, dense.data() + ids[i] * bytes,
                                            bytes);
                              }
                            }},
                           {"RocksDB MultiGet, row by key, all in its cache", kRowsOfAStep,
                            [&](Ids ids) { OrDie(multi_get.Read(ids, out.data())); }},
                           {"the store's record in RocksDB, every row checked", kRowsOfAStep,
                            [&](Ids ids) { OrDie(record.Read(ids, out.data())); }},
                           {"mapped segment, checksums not looked at", kRowsOfAStep,
                            [&](Ids ids) { segment.ReadUnchecked(ids, out.data()); }}};
  for (const size_t batch : kBatches) {
    ways.push_back(
        {absl::StrCat("store process, mapped by the caller, checked, ", batch, " rows a call"),
         batch, [&](Ids ids) {
           std::vector<size_t> damaged;
           theirs.Read(ids, ids.size(), out.data(), damaged);
           if (!damaged.empty()) std::exit(1);
         }});
  }
  for (const size_t batch : kBatches) {
    ways.push_back({absl::StrCat("store process over gRPC, ", batch, " rows a call"), batch,
                    GrpcReader(process.address)});
  }
  const std::vector<double> rates = Compare(dense.size() / bytes, ways);
  std::printf("mapped by the caller over RocksDB MultiGet, %zu rows a call: %.1f\n", kRowsOfAStep,
              rates[4] / rates[1]);
}

// Rows as a step gets them: EngramClient from Begin to Finish, floats out.
void MeasureFloats(const std::vector<std::byte>& dense, const model::TableShape& shape,
                   const StoreProcess& process) {
  using Ids = std::span<const uint64_t>;
  const size_t bytes = shape.row_bytes();
  std::vector<float> out(kRowsOfAStep * shape.width);
  model::TableRowCodec codec(model::kFp8TableRows, shape.width);
  std::vector<Way> ways = {
      {"dense array, prefetched, decoded to floats", kRowsOfAStep, [&](Ids ids) {
         for (size_t i = 0; i < ids.size(); ++i) {
           PrefetchDense(dense, bytes, ids, i);
           OrDie(
               codec.Decode({dense.data() + ids[i] * bytes, bytes}, out.data() + i * shape.width));
         }
       }}};
  Worker mapped(process, true);
  Worker asked(process, false);
  for (Worker* worker : {&mapped, &asked}) {
    for (const size_t batch : kBatches) {
      ways.push_back(
          {absl::StrCat("a worker's memory, ", worker == &mapped ? "mapped" : "over gRPC", ", ",
                        batch, " rows a step"),
           batch, [&, worker](Ids ids) { worker->Step(ids, shape.width, out); }});
    }
  }
  Compare(dense.size() / bytes, ways);
}

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
  const auto multi_get = OrDie(engram_store::MultiGetTable::Make(dir / "plain", dense, bytes));
  MeasureStored(dense, *served, *multi_get, *tables, process);
  MeasureFloats(dense, shape, process);
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
      const model::StepResult result = model_.RunStep(rows, experts_, pool_, {nullptr, &memory});
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
  Worker mapped(process, true);
  Worker asked(process, false);

  for (const size_t lanes : {size_t{1}, size_t{8}}) {
    Decoder decoder(*model, backend, pool, lanes, lanes == 1 ? 24 : 8);
    std::vector<double> local_rates;
    std::vector<double> mapped_ratios;
    std::vector<double> asked_ratios;
    const auto run = [&](uint64_t round, Worker& worker) {
      return decoder.Run(round, worker.client, [&] {
        worker.client.BeginStep({{lanes, worker.pin}});
      });
    };
    for (uint64_t round = 0; round < kTokenRounds; ++round) {
      local_rates.push_back(decoder.Run(round, *local, [] {}));
      mapped_ratios.push_back(run(round, mapped) / local_rates.back());
      asked_ratios.push_back(run(round, asked) / local_rates.back());
    }
    std::printf(
        "%zu lanes: %.2f tok/s with rows of this process; with rows of a store process over that: "
        "%.3f mapped, %.3f over gRPC (medians of %d alternated runs)\n",
        lanes, Median(local_rates), Median(mapped_ratios), Median(asked_ratios), kTokenRounds);
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

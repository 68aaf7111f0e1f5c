// The rows of the memory from Engram stores: the MemoryBackend of a mesh. Begin asks for what the
// cache lacks, all layers in one call, while the layers before compute; Finish waits for it.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

#include "attention-worker/engram_stores.h"
#include "model/formats/table_row.h"
#include "model/memory_backend.h"
#include "services/base/clock.h"
#include "services/base/row_cache.h"
#include "services/telemetry/metrics.h"

namespace expertmesh::attention_worker {

/// Version of the tables that some consecutive rows of a step read.
struct MemoryLane {
  size_t row_count = 0;
  std::shared_ptr<const MemoryPin> pin;
};

/// Used by the engine thread alone.
class EngramClient final : public model::MemoryBackend {
 public:
  struct Options {
    size_t cache_rows = 65536;
    base::Micros wait_max = std::chrono::seconds(2);  // for a store to come back
  };
  /// All references outlive the client.
  EngramClient(EngramStores& stores, Options options, const base::Clock& clock,
               telemetry::Metrics& metrics);
  ~EngramClient() override;

  /// Before each RunStep: whose rows the next call will be.
  void BeginStep(std::vector<MemoryLane> lanes);
  void Begin(const model::MemoryCall& call) override;
  void Finish(uint32_t layer, std::span<float> out, std::span<uint8_t> alive) override;
  /// Why a row of the last step failed; OK if its memory did not fail.
  const absl::Status& failure(size_t row) const { return failures_[row]; }

 private:
  struct Ask;     // one call on its way
  struct Asked;   // what waits for it; shared with gRPC's callbacks
  struct Table {  // of one version and layer
    std::string version;
    uint32_t layer = 0;
    uint64_t number = 0;  // in the cache
    const engram::v1::TableShape* shape = nullptr;
  };
  /// Rows of one table that are asked for, each once.
  struct Wanted {
    Table table;
    std::vector<uint64_t> ids;
    std::unordered_map<uint64_t, size_t> places;  // id → index in ids
    std::string rows;
    absl::Status status;
  };

  void PrepareFormat();
  uint64_t TableNumber(const std::string& version, uint32_t layer);
  void Collect(const model::MemoryCall::Layer& layer);
  Wanted& WantedOf(const MemoryLane& lane, uint32_t layer);
  void SendAll();
  void Send(const std::shared_ptr<Ask>& ask);
  void AwaitAll();
  void Settle(const std::shared_ptr<Ask>& ask);
  bool TakeAnswer(const Ask& ask);

  EngramStores& stores_;
  const Options options_;
  const base::Clock& clock_;
  std::unordered_map<std::string, uint64_t> tables_;  // version and layer → number in the cache
  std::unique_ptr<base::RowCache> cache_;
  std::unique_ptr<model::TableRowCodec> codec_;
  engram::v1::TableShape shape_;  // of the codec and the cache

  // Of the step.
  std::vector<MemoryLane> lanes_;
  model::MemoryCall call_;
  std::vector<std::vector<std::byte>> raw_;  // [layers of the call][rows · columns · row bytes]
  // [layers][rows · columns]: where the row comes from: index in wanted_ and in its ids, or none.
  std::vector<std::vector<std::pair<uint32_t, uint32_t>>> sources_;
  std::vector<std::unique_ptr<Wanted>> wanted_;
  std::vector<std::shared_ptr<Ask>> asks_;
  std::vector<absl::Status> failures_;
  base::Instant begin_;

  telemetry::Counter hits_, misses_, retries_;
  telemetry::Histogram wait_seconds_;
};

}  // namespace expertmesh::attention_worker

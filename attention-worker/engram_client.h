// The rows of the memory from Engram stores: the MemoryBackend of a mesh. Begin asks for what the
// cache lacks, all layers in one call, while the layers before compute; Finish waits for it. Where
// a store's files are mapped, Finish reads them instead, and asks for a row that is damaged there.
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

  /// Where an asked row lies: index in wanted_ and in its ids; or kCached, in raw_.
  using Source = std::pair<uint32_t, uint32_t>;
  /// One lane's part of a Finish.
  struct Part {
    const MemoryLane& lane;
    size_t place = 0;          // of the layer in the call
    size_t row = 0;            // first token of the lane in the step
    std::span<float> out;      // [row_count, columns · width], of the step
    std::span<uint8_t> alive;  // [row_count], of the step
  };

  void PrepareFormat();
  uint64_t TableNumber(const std::string& version, uint32_t layer);
  const model::MappedSegment* SegmentOf(const MemoryLane& lane, uint32_t layer) const;
  void Collect(const model::MemoryCall::Layer& layer);
  Source Want(const MemoryLane& lane, uint32_t layer, uint64_t id, size_t first);
  size_t WantedOf(const MemoryLane& lane, uint32_t layer, size_t first);
  void FinishMapped(const model::MappedSegment& segment, const Part& part);
  void FinishAsked(const Part& part);
  void AskForDamaged(const model::MappedSegment& segment, const Part& part,
                     const std::vector<size_t>& damaged);
  void Deliver(const absl::Status& found, const std::byte* bytes, size_t at, const Part& part);
  void DeliverAsked(Source source, size_t at, const Part& part);
  void SendAll(size_t first);
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
  // Of each layer of the call; empty where every lane's rows are mapped.
  std::vector<std::vector<std::byte>> raw_;   // [layers][rows · columns · row bytes]
  std::vector<std::vector<Source>> sources_;  // [layers][rows · columns]
  std::vector<std::byte> block_;              // some rows on their way to their places
  std::vector<std::unique_ptr<Wanted>> wanted_;
  std::vector<std::shared_ptr<Ask>> asks_;
  std::vector<absl::Status> failures_;
  base::Instant begin_;

  telemetry::Counter mapped_, hits_, misses_, retries_;
  telemetry::Histogram wait_seconds_;
};

}  // namespace expertmesh::attention_worker

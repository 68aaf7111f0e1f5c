#include "attention-worker/engram_client.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <cstring>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "services/base/crc32c.h"
#include "services/base/status.h"
#include "services/rpc/identity.h"
#include "services/rpc/status.h"
#include "services/telemetry/metric_catalogue.h"

namespace expertmesh::attention_worker {

using base::Error;
using base::Reason;
namespace metric = telemetry::metric;
namespace pb = engram::v1;

namespace {

constexpr size_t kRowsOfACall = 65536;
constexpr size_t kBlockRows = 32;         // that lie in the nearest cache until they are decoded
constexpr uint32_t kCached = UINT32_MAX;  // its bytes are in raw_ already
constexpr std::chrono::milliseconds kRetryEvery(20);

model::MatrixFormat FormatOf(pb::RowFormat format) {
  if (format == pb::ROW_FORMAT_F32) return model::kPlainF32;
  return format == pb::ROW_FORMAT_BF16 ? model::kPlainBf16 : model::kFp8TableRows;
}

}  // namespace

/// What the engine thread waits on.
struct EngramClient::Asked {
  std::mutex mutex;
  std::condition_variable changed;
};

struct EngramClient::Ask {
  std::shared_ptr<Asked> asked;
  std::vector<size_t> wanted;  // indices of wanted_, in the order of the request's sets
  std::shared_ptr<const EngramStores::Store> store;
  std::set<uint64_t> tried;                                    // incarnations
  std::vector<std::unique_ptr<grpc::ClientContext>> contexts;  // one for each store asked
  pb::LookupBatchRequest request;
  pb::LookupBatchResponse response;
  grpc::Status status;
  bool done = false;  // guarded by asked->mutex
};

EngramClient::EngramClient(EngramStores& stores, Options options, const base::Clock& clock,
                           telemetry::Metrics& metrics)
    : stores_(stores),
      options_(options),
      clock_(clock),
      mapped_(metrics.GetCounter(metric::kAttentionMemoryRows, {{"result", "mapped"}})),
      hits_(metrics.GetCounter(metric::kAttentionMemoryRows, {{"result", "hit"}})),
      misses_(metrics.GetCounter(metric::kAttentionMemoryRows, {{"result", "miss"}})),
      retries_(metrics.GetCounter(metric::kAttentionMemoryRetries)),
      wait_seconds_(metrics.GetHistogram(metric::kAttentionMemoryWait)) {}

EngramClient::~EngramClient() = default;

void EngramClient::BeginStep(std::vector<MemoryLane> lanes) {
  lanes_ = std::move(lanes);
  size_t rows = 0;
  for (const MemoryLane& lane : lanes_) rows += lane.row_count;
  failures_.assign(rows, absl::OkStatus());
}

uint64_t EngramClient::TableNumber(const std::string& version, uint32_t layer) {
  return tables_.try_emplace(absl::StrCat(version, "/", layer), tables_.size() + 1).first->second;
}

// All versions of a model have one type of row, so this does something once.
void EngramClient::PrepareFormat() {
  const pb::TableShape& shape = lanes_.front().pin->shape;
  if (codec_ && shape.format() == shape_.format() && shape.width() == shape_.width()) return;
  shape_ = shape;
  codec_ = std::make_unique<model::TableRowCodec>(FormatOf(shape.format()), shape.width());
  cache_ = std::make_unique<base::RowCache>(options_.cache_rows, codec_->row_bytes());
  block_.resize(kBlockRows * codec_->row_bytes());
}

// Null where rows must be asked for.
const model::MappedSegment* EngramClient::SegmentOf(const MemoryLane& lane, uint32_t layer) const {
  if (lane.pin->mapped == nullptr) return nullptr;
  const model::MappedSegment* segment = lane.pin->mapped->Find(layer);
  return segment != nullptr && segment->row_bytes() == codec_->row_bytes() ? segment : nullptr;
}

size_t EngramClient::WantedOf(const MemoryLane& lane, uint32_t layer, size_t first) {
  for (size_t i = first; i < wanted_.size(); ++i) {
    const Wanted& wanted = *wanted_[i];
    if (wanted.table.layer == layer && wanted.table.version == lane.pin->version &&
        wanted.ids.size() < kRowsOfACall) {
      return i;
    }
  }
  auto wanted = std::make_unique<Wanted>();
  wanted->table = {lane.pin->version, layer, TableNumber(lane.pin->version, layer),
                   &lane.pin->shape};
  wanted_.push_back(std::move(wanted));
  return wanted_.size() - 1;
}

// Adds a row to what wanted_ holds from `first` on.
EngramClient::Source EngramClient::Want(const MemoryLane& lane, uint32_t layer, uint64_t id,
                                        size_t first) {
  const size_t index = WantedOf(lane, layer, first);
  Wanted& wanted = *wanted_[index];
  const auto [place, is_new] = wanted.places.try_emplace(id, wanted.ids.size());
  if (is_new) wanted.ids.push_back(id);
  return {static_cast<uint32_t>(index), static_cast<uint32_t>(place->second)};
}

// What the cache has is copied now, since it may be gone when the layer comes.
void EngramClient::Collect(const model::MemoryCall::Layer& layer) {
  const size_t row_bytes = codec_->row_bytes();
  std::vector<std::byte>& raw = raw_.emplace_back();
  std::vector<Source>& sources = sources_.emplace_back();
  size_t hits = 0;
  size_t misses = 0;
  size_t end = 0;
  for (const MemoryLane& lane : lanes_) {
    size_t at = end;
    end += lane.row_count * call_.columns;
    if (SegmentOf(lane, layer.layer) != nullptr) continue;
    raw.resize(layer.row_ids.size() * row_bytes);
    sources.resize(layer.row_ids.size(), {kCached, kCached});
    const uint64_t table = TableNumber(lane.pin->version, layer.layer);
    for (; at < end; ++at) {
      const uint64_t id = layer.row_ids[at];
      const std::byte* cached = cache_->Find(table, id);
      if (cached != nullptr) {
        std::memcpy(raw.data() + at * row_bytes, cached, row_bytes);
        ++hits;
        continue;
      }
      sources[at] = Want(lane, layer.layer, id, 0);
      ++misses;
    }
  }
  hits_.Add(static_cast<double>(hits));
  misses_.Add(static_cast<double>(misses));
}

void EngramClient::Begin(const model::MemoryCall& call) {
  call_ = call;
  raw_.clear();
  sources_.clear();
  wanted_.clear();
  asks_.clear();
  begin_ = clock_.Now();
  PrepareFormat();
  for (const model::MemoryCall::Layer& layer : call_.layers) Collect(layer);
  SendAll(0);
}

// As few calls as the bound allows: one, unless the step is very large.
void EngramClient::SendAll(size_t first) {
  const auto asked = std::make_shared<Asked>();
  size_t rows = kRowsOfACall;
  for (size_t i = first; i < wanted_.size(); ++i) {
    const Wanted& wanted = *wanted_[i];
    if (rows + wanted.ids.size() > kRowsOfACall) {
      asks_.push_back(std::make_shared<Ask>());
      asks_.back()->asked = asked;
      auto& model = *asks_.back()->request.mutable_model();
      model.set_model(stores_.options().model);
      model.set_revision(stores_.options().revision);
      rows = 0;
    }
    pb::RowSet* set = asks_.back()->request.add_sets();
    set->set_version(wanted.table.version);
    set->set_layer(wanted.table.layer);
    set->mutable_row_ids()->Add(wanted.ids.begin(), wanted.ids.end());
    asks_.back()->wanted.push_back(i);
    rows += wanted.ids.size();
  }
  for (const std::shared_ptr<Ask>& ask : asks_) Send(ask);
}

// To the first store that was not tried; done at once, without a store, if there is none.
void EngramClient::Send(const std::shared_ptr<Ask>& ask) {
  ask->store = nullptr;
  for (const auto& store : stores_.stores()) {
    if (ask->store == nullptr && !ask->tried.contains(store->at.incarnation)) ask->store = store;
  }
  ask->done = ask->store == nullptr;
  if (ask->done) {
    ask->status = {grpc::StatusCode::UNAVAILABLE, "no Engram store is left to ask"};
    return;
  }
  ask->tried.insert(ask->store->at.incarnation);
  ask->contexts.push_back(std::make_unique<grpc::ClientContext>());
  rpc::PrepareClient(*ask->contexts.back(), {}, stores_.options().call_timeout);
  ask->response.Clear();
  ask->store->stub->async()->LookupBatch(ask->contexts.back().get(), &ask->request, &ask->response,
                                         [ask](const grpc::Status& status) {
                                           std::lock_guard lock(ask->asked->mutex);
                                           ask->status = status;
                                           ask->done = true;
                                           ask->asked->changed.notify_all();
                                         });
}

// False if some set is not whole: another store may have it.
bool EngramClient::TakeAnswer(const Ask& ask) {
  if (!ask.status.ok()) {
    for (const size_t i : ask.wanted) wanted_[i]->status = rpc::FromGrpcStatus(ask.status);
    return false;
  }
  bool whole = true;
  for (size_t at = 0; at < ask.wanted.size(); ++at) {
    Wanted& wanted = *wanted_[ask.wanted[at]];
    if (static_cast<int>(at) >= ask.response.blocks_size()) {
      wanted.status = Error(Reason::kEngramChecksum, "the answer has fewer sets than the question");
      whole = false;
      continue;
    }
    const pb::RowBlock& block = ask.response.blocks(static_cast<int>(at));
    const auto bytes = std::as_bytes(std::span(block.rows().data(), block.rows().size()));
    if (block.has_status()) {
      wanted.status = rpc::FromRpcStatus(block.status());
    } else if (block.rows().size() != wanted.ids.size() * codec_->row_bytes() ||
               base::Crc32c(bytes) != block.rows_crc32c()) {
      wanted.status =
          Error(Reason::kEngramChecksum, absl::StrCat("rows of Engram store ", ask.store->at.name,
                                                      " do not match their size or checksum"));
    } else {
      wanted.status = absl::OkStatus();
      wanted.rows = block.rows();
    }
    whole = whole && wanted.status.ok();
  }
  return whole;
}

// Waits for one call, and asks others until it is answered, or no store came in time.
void EngramClient::Settle(const std::shared_ptr<Ask>& ask) {
  for (;;) {
    const uint64_t generation = stores_.generation();
    {
      std::unique_lock lock(ask->asked->mutex);
      ask->asked->changed.wait(lock, [&] { return ask->done; });
    }
    if (TakeAnswer(*ask)) return;
    const auto stores = stores_.stores();
    const bool untried = std::any_of(stores.begin(), stores.end(), [&](const auto& store) {
      return !ask->tried.contains(store->at.incarnation);
    });
    retries_.Add();
    if (untried) {
      Send(ask);
      continue;
    }
    const bool lost = std::any_of(ask->wanted.begin(), ask->wanted.end(), [&](size_t i) {
      const Reason reason = base::ReasonOf(wanted_[i]->status);
      return reason == Reason::kPeerLost || reason == Reason::kNotReady ||
             reason == Reason::kDraining || reason == Reason::kDeadlineExceeded;
    });
    if (!lost || clock_.Now() - begin_ >= options_.wait_max) return;
    stores_.WaitForChange(generation, kRetryEvery);
    ask->tried.clear();
    Send(ask);
  }
}

void EngramClient::AwaitAll() {
  if (asks_.empty()) return;
  const base::Instant start = clock_.Now();
  for (const std::shared_ptr<Ask>& ask : asks_) Settle(ask);
  asks_.clear();
  wait_seconds_.Observe(static_cast<double>((clock_.Now() - start).count()) * 1e-6);
  const size_t row_bytes = codec_->row_bytes();
  for (const auto& wanted : wanted_) {
    if (!wanted->status.ok()) continue;
    for (size_t i = 0; i < wanted->ids.size(); ++i) {
      cache_->Put(wanted->table.number, wanted->ids[i],
                  reinterpret_cast<const std::byte*>(wanted->rows.data()) + i * row_bytes);
    }
  }
}

// Decodes a row into its place; its token fails if there is none.
void EngramClient::Deliver(const absl::Status& found, const std::byte* bytes, size_t at,
                           const Part& part) {
  absl::Status status = found;
  if (status.ok()) {
    status = codec_->Decode({bytes, codec_->row_bytes()}, part.out.data() + at * call_.width);
  } else if (base::ReasonOf(status) == Reason::kPeerLost ||
             base::ReasonOf(status) == Reason::kDeadlineExceeded) {
    status = Error(Reason::kEngramUnavailable,
                   absl::StrCat("no Engram store answered: ", status.message()));
  }
  if (status.ok()) return;
  const size_t row = at / call_.columns;
  part.alive[row] = 0;
  failures_[row] = status;
}

void EngramClient::DeliverAsked(Source source, size_t at, const Part& part) {
  const Wanted& wanted = *wanted_[source.first];
  const auto* rows = reinterpret_cast<const std::byte*>(wanted.rows.data());
  Deliver(wanted.status, rows + source.second * codec_->row_bytes(), at, part);
}

void EngramClient::FinishAsked(const Part& part) {
  const size_t row_bytes = codec_->row_bytes();
  for (size_t row = part.row; row < part.row + part.lane.row_count; ++row) {
    for (size_t c = 0; c < call_.columns && part.alive[row] != 0; ++c) {
      const size_t at = row * call_.columns + c;
      const Source source = sources_[part.place][at];
      if (source.first == kCached) {
        Deliver(absl::OkStatus(), raw_[part.place].data() + at * row_bytes, at, part);
      } else {
        DeliverAsked(source, at, part);
      }
    }
  }
}

void EngramClient::FinishMapped(const model::MappedSegment& segment, const Part& part) {
  const size_t row_bytes = codec_->row_bytes();
  const size_t begin = part.row * call_.columns;
  const std::span<const uint64_t> ids =
      call_.layers[part.place].row_ids.subspan(begin, part.lane.row_count * call_.columns);
  std::vector<size_t> damaged;  // as `at` elsewhere: row · columns + column of the step
  std::vector<size_t> bad;      // of a block
  for (size_t first = 0; first < ids.size(); first += kBlockRows) {
    const size_t count = std::min(kBlockRows, ids.size() - first);
    bad.clear();
    segment.Read(ids.subspan(first), count, block_.data(), bad);
    auto next_bad = bad.begin();
    for (size_t i = 0; i < count; ++i) {
      const size_t at = begin + first + i;
      if (next_bad != bad.end() && *next_bad == i) {
        damaged.push_back(at);
        ++next_bad;
      } else if (part.alive[at / call_.columns] != 0) {
        Deliver(absl::OkStatus(), block_.data() + i * row_bytes, at, part);
      }
    }
  }
  mapped_.Add(static_cast<double>(ids.size() - damaged.size()));
  if (!damaged.empty()) AskForDamaged(segment, part, damaged);
}

// Another store may have these rows, and the one whose files they are in says what is wrong.
void EngramClient::AskForDamaged(const model::MappedSegment& segment, const Part& part,
                                 const std::vector<size_t>& damaged) {
  const model::MemoryCall::Layer& layer = call_.layers[part.place];
  const uint64_t table = TableNumber(part.lane.pin->version, layer.layer);
  const size_t first = wanted_.size();
  std::vector<std::pair<size_t, Source>> asked;
  for (const size_t at : damaged) {
    const std::byte* cached = cache_->Find(table, layer.row_ids[at]);
    if (cached != nullptr) {
      hits_.Add();
      Deliver(absl::OkStatus(), cached, at, part);
    } else {
      asked.emplace_back(at, Want(part.lane, layer.layer, layer.row_ids[at], first));
    }
  }
  if (asked.empty()) return;
  spdlog::warn("{}: row {} does not match its checksum; asking for it and {} more", segment.path(),
               layer.row_ids[asked.front().first], asked.size() - 1);
  retries_.Add();
  misses_.Add(static_cast<double>(asked.size()));
  SendAll(first);
  AwaitAll();
  for (const auto& [at, source] : asked) {
    if (part.alive[at / call_.columns] != 0) DeliverAsked(source, at, part);
  }
}

void EngramClient::Finish(uint32_t layer, std::span<float> out, std::span<uint8_t> alive) {
  AwaitAll();
  const auto wanted_layer =
      std::find_if(call_.layers.begin(), call_.layers.end(),
                   [&](const model::MemoryCall::Layer& l) { return l.layer == layer; });
  const auto place = static_cast<size_t>(wanted_layer - call_.layers.begin());
  size_t row = 0;
  for (const MemoryLane& lane : lanes_) {
    const Part part{lane, place, row, out, alive};
    if (const model::MappedSegment* segment = SegmentOf(lane, layer)) {
      FinishMapped(*segment, part);
    } else {
      FinishAsked(part);
    }
    row += lane.row_count;
  }
}

}  // namespace expertmesh::attention_worker

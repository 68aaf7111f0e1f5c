#include "attention-worker/lane_service.h"

#include <algorithm>
#include <cstring>
#include <mutex>
#include <utility>

#include <google/protobuf/util/message_differencer.h>

#include "absl/strings/str_cat.h"
#include "services/base/crc32c.h"
#include "services/base/status.h"
#include "services/rpc/identity.h"
#include "services/rpc/status.h"

namespace expertmesh::attention_worker {

using attention::v1::ExportLaneRequest;
using attention::v1::ExportLaneResponse;
using attention::v1::ImportLaneRequest;
using attention::v1::ImportLaneResponse;
using attention::v1::LaneChunk;
using attention::v1::LaneRecord;
using base::Error;
using base::Reason;

namespace {

constexpr size_t kChunkBytes = size_t{1} << 20;
// More than any page of any model; a header that says more is not ours.
constexpr uint64_t kPageBytesMax = uint64_t{256} << 20;

size_t PagesOf(size_t positions) {
  return (positions + model::kPagePositions - 1) / model::kPagePositions;
}

uint32_t ChecksumOf(const std::string& data) {
  return base::Crc32c(std::as_bytes(std::span(data)));
}

// Sends one lane. The engine and gRPC both call it; the one that is at work holds it alive.
class Exporter final : public grpc::ServerWriteReactor<ExportLaneResponse> {
 public:
  Exporter(AttentionEngine& engine, const ExportLaneRequest& request)
      : engine_(engine), name_(request.lane()), keep_(request.keep()) {}

  void Refuse(const absl::Status& status) { Finish(rpc::ToGrpcStatus(status)); }

  void Begin(const std::string& tenant, bool park, LaneRecord record) {
    record_ = std::move(record);
    engine_.Export(name_, tenant, park, [this](absl::StatusOr<LaneSnapshot> snapshot) {
      if (!snapshot.ok()) return Refuse(snapshot.status());
      positions_ = snapshot->positions;
      if (!record_.mutable_request()->ParseFromString(snapshot->record)) {
        return Refuse(Error(Reason::kInternal, "the lane's record cannot be read"));
      }
      record_.mutable_generated()->Add(snapshot->generated.begin(), snapshot->generated.end());
      record_.set_positions(positions_);
      record_.set_engram_version(record_.request().engram_version());
      *response_.mutable_part()->mutable_record() = std::move(record_);
      StartWrite(&response_);
    });
  }

  void OnWriteDone(bool ok) override {
    if (!ok) return Finish(grpc::Status::CANCELLED);
    if (sent_ < state_.size()) return SendChunk();
    if (page_ < PagesOf(positions_)) return FetchPage();
    if (!keep_) engine_.Drop(name_);
    Finish(grpc::Status::OK);
  }
  void OnDone() override { delete this; }

 private:
  void FetchPage() {
    engine_.ExportPage(name_, page_, positions_, [this](absl::StatusOr<std::string> state) {
      if (!state.ok()) return Refuse(state.status());
      state_ = *std::move(state);
      sent_ = 0;
      ++page_;
      SendChunk();
    });
  }

  void SendChunk() {
    LaneChunk* chunk = response_.mutable_part()->mutable_chunk();
    chunk->set_page(static_cast<uint32_t>(page_ - 1));
    chunk->set_offset(sent_);
    chunk->set_page_bytes(state_.size());
    chunk->set_data(state_.substr(sent_, kChunkBytes));
    chunk->set_crc32c(ChecksumOf(chunk->data()));
    sent_ += chunk->data().size();
    StartWrite(&response_);
  }

  AttentionEngine& engine_;
  const std::string name_;
  const bool keep_;
  LaneRecord record_;
  ExportLaneResponse response_;
  size_t positions_ = 0;
  size_t page_ = 0;  // the next to fetch
  std::string state_;
  size_t sent_ = 0;
};

// Takes one lane in. Reads only while the engine is not at work for it.
class Importer final : public grpc::ServerReadReactor<ImportLaneRequest> {
 public:
  using MakeLane = std::function<absl::StatusOr<LaneRequest>(const LaneRecord&)>;
  Importer(AttentionEngine& engine, EngramStores* stores, ImportLaneResponse* response,
           MakeLane make_lane)
      : engine_(engine), stores_(stores), response_(response), make_lane_(std::move(make_lane)) {}

  void Refuse(const absl::Status& status) {
    if (!name_.empty()) engine_.Drop(name_);
    Finish(rpc::ToGrpcStatus(status));
  }
  void Begin() { StartRead(&request_); }

  void OnReadDone(bool ok) override {
    if (!ok) return AtEnd();
    absl::Status status = absl::OkStatus();
    if (request_.part().has_record()) {
      status = TakeRecord(*request_.mutable_part()->mutable_record());
    } else if (request_.part().has_chunk()) {
      status = TakeChunk(request_.part().chunk());
    } else {
      status = Error(Reason::kFrameMalformed, "a part of the lane is empty");
    }
    if (!status.ok()) Refuse(status);
  }
  void OnDone() override { delete this; }

 private:
  // Each of these goes on reading when the engine has answered, or returns what is wrong.
  absl::Status TakeRecord(const LaneRecord& record) {
    if (!name_.empty()) return Error(Reason::kFrameMalformed, "the record came twice");
    EM_ASSIGN_OR_RETURN(LaneRequest lane, make_lane_(record));
    positions_ = record.positions();
    name_ = lane.name;
    if (stores_ == nullptr && !record.request().engram_version().empty()) {
      return Error(Reason::kModelHasNoMemory,
                   "the lane reads an Engram store, this worker does not");
    }
    if (stores_ == nullptr) {
      Import(std::move(lane));
      return absl::OkStatus();
    }
    stores_->Pin(record.request().engram_version(),
                 [this, waiting = std::make_shared<LaneRequest>(std::move(lane))](
                     absl::StatusOr<std::shared_ptr<const MemoryPin>> pin) {
                   if (!pin.ok()) return Refuse(pin.status());
                   KeepVersion(*waiting, *std::move(pin));
                   Import(std::move(*waiting));
                 });
    return absl::OkStatus();
  }

  absl::Status TakeChunk(const LaneChunk& chunk) {
    if (name_.empty()) return Error(Reason::kFrameMalformed, "the record must come first");
    if (chunk.page() != page_ || chunk.offset() != state_.size() ||
        chunk.page_bytes() > kPageBytesMax || chunk.data().empty() ||
        chunk.data().size() > chunk.page_bytes() - std::min(chunk.offset(), chunk.page_bytes())) {
      return Error(Reason::kFrameMalformed,
                   absl::StrCat("a chunk of page ", chunk.page(), " from byte ", chunk.offset(),
                                "; page ", page_, " from byte ", state_.size(), " is next"));
    }
    if (ChecksumOf(chunk.data()) != chunk.crc32c()) {
      return Error(Reason::kFrameChecksum,
                   absl::StrCat("page ", page_, " from byte ", chunk.offset(),
                                ": the checksum does not match; export the lane again"));
    }
    state_ += chunk.data();
    if (state_.size() < chunk.page_bytes()) {
      StartRead(&request_);
      return absl::OkStatus();
    }
    engine_.ImportPage(name_, page_++, positions_, std::exchange(state_, {}),
                       [this](const absl::Status& status) { Go(status); });
    return absl::OkStatus();
  }

  void Import(LaneRequest lane) {
    engine_.Import(std::move(lane), positions_, [this](const absl::Status& status) { Go(status); });
  }

  void Go(const absl::Status& status) {
    if (!status.ok()) return Refuse(status);
    StartRead(&request_);
  }

  void AtEnd() {
    if (name_.empty() || page_ < PagesOf(positions_)) {
      return Refuse(Error(
          Reason::kFrameMalformed,
          absl::StrCat("the lane ends after ", page_, " of ", PagesOf(positions_), " pages")));
    }
    response_->set_lane(name_);
    Finish(grpc::Status::OK);
  }

  AttentionEngine& engine_;
  EngramStores* const stores_;
  ImportLaneResponse* const response_;
  const MakeLane make_lane_;
  ImportLaneRequest request_;
  std::string name_;  // empty until the record came
  size_t positions_ = 0;
  size_t page_ = 0;  // the next to arrive
  std::string state_;
};

absl::Status CheckRecord(const LaneRecord& record, const WorkerIdentity& identity,
                         const model::LaneStateDeclaration& lane_state) {
  if (record.model().revision() != identity.revision) {
    return Error(Reason::kModelNotFound,
                 absl::StrCat("the lane is of revision \"", record.model().revision(),
                              "\", this worker serves \"", identity.revision, "\""));
  }
  if (record.profile() != identity.profile) {
    return Error(Reason::kProfileMismatch,
                 absl::StrCat("the lane was computed in ", record.profile(),
                              ", this worker computes in ", identity.profile));
  }
  LaneRecord own;
  ToProto(lane_state, own.mutable_lane_state());
  bool same = own.lane_state_size() == record.lane_state_size();
  for (int i = 0; same && i < own.lane_state_size(); ++i) {
    same =
        google::protobuf::util::MessageDifferencer::Equals(own.lane_state(i), record.lane_state(i));
  }
  if (!same) return Error(Reason::kFrameMalformed, "the lane's state is laid out differently");
  const uint64_t tokens = static_cast<uint64_t>(record.generated_size());
  uint64_t prompt = 0;
  for (const auto& segment : record.request().segments()) {
    prompt += static_cast<uint64_t>(segment.tokens().ids_size());
  }
  if (record.positions() >= prompt + tokens) {
    return Error(Reason::kFrameMalformed,
                 absl::StrCat("the lane has ", prompt + tokens, " tokens, but state of ",
                              record.positions(), "; the last token's is never there"));
  }
  return absl::OkStatus();
}

}  // namespace

void ToProto(const model::LaneStateDeclaration& lane_state,
             google::protobuf::RepeatedPtrField<attention::v1::LaneStream>* out) {
  for (const model::LaneStream& stream : lane_state.streams) {
    auto* added = out->Add();
    added->set_name(stream.name);
    added->set_kind(static_cast<attention::v1::LaneStreamKind>(static_cast<int>(stream.kind) + 1));
    added->set_layers(stream.layers);
    added->set_bytes_per_position(stream.bytes_per_position);
    added->set_page_positions(stream.page_positions);
    added->set_cut_stride(stream.cut_stride);
  }
}

grpc::ServerUnaryReactor* LaneService::Describe(grpc::CallbackServerContext* context,
                                                const attention::v1::DescribeRequest* /*request*/,
                                                attention::v1::DescribeResponse* response) {
  response->mutable_model()->set_model(identity_.model);
  response->mutable_model()->set_revision(identity_.revision);
  response->set_profile(identity_.profile);
  response->set_fingerprint(identity_.fingerprint);
  ToProto(lane_state_, response->mutable_lane_state());
  const AttentionEngine::Load load = engine_.load();
  response->set_pages_total(load.pages_total);
  response->set_pages_used(load.pages_used);
  response->set_running_lanes(static_cast<uint32_t>(load.running));
  response->set_queued_requests(static_cast<uint32_t>(load.waiting));
  const PlacementView view = experts_.view();
  response->mutable_epoch()->set_term(view.term);
  response->mutable_epoch()->set_number(view.number);
  response->mutable_epoch()->set_content_hash(view.content_hash);
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  reactor->Finish(rpc::ToGrpcStatus(rpc::RequireDeadline(*context)));
  return reactor;
}

grpc::ServerWriteReactor<ExportLaneResponse>* LaneService::ExportLane(
    grpc::CallbackServerContext* context, const ExportLaneRequest* request) {
  auto* exporter = new Exporter(engine_, *request);
  const auto identity = rpc::IdentityOf(*context);
  absl::Status status = identity.ok() ? rpc::RequireDeadline(*context) : identity.status();
  if (!status.ok()) {
    exporter->Refuse(status);
    return exporter;
  }
  LaneRecord record;
  record.mutable_model()->set_model(identity_.model);
  record.mutable_model()->set_revision(identity_.revision);
  record.set_profile(identity_.profile);
  ToProto(lane_state_, record.mutable_lane_state());
  exporter->Begin(identity->tenant, request->park(), std::move(record));
  return exporter;
}

grpc::ServerReadReactor<ImportLaneRequest>* LaneService::ImportLane(
    grpc::CallbackServerContext* context, ImportLaneResponse* response) {
  const auto identity = rpc::IdentityOf(*context);
  const std::string tenant = identity.ok() ? identity->tenant : std::string();
  const auto make_lane = [this, tenant](const LaneRecord& record) -> absl::StatusOr<LaneRequest> {
    EM_RETURN_IF_ERROR(CheckRecord(record, identity_, lane_state_));
    // The time that the lane may still take is fixed by whoever goes on with it.
    EM_ASSIGN_OR_RETURN(LaneRequest lane, ToLaneRequest(record.request(), identity_, clock_.Now(),
                                                        std::chrono::hours(1)));
    lane.tenant = tenant;
    lane.history.assign(record.generated().begin(), record.generated().end());
    EM_RETURN_IF_ERROR(
        CheckRequest(lane, {identity_.vocab_size, identity_.context, identity_.lane_tokens}));
    return lane;
  };
  auto* importer = new Importer(engine_, stores_, response, make_lane);
  absl::Status status = identity.ok() ? rpc::RequireDeadline(*context) : identity.status();
  if (status.ok()) status = admit_();
  if (status.ok()) {
    importer->Begin();
  } else {
    importer->Refuse(status);
  }
  return importer;
}

}  // namespace expertmesh::attention_worker

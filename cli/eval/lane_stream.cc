#include "cli/eval/lane_stream.h"

#include <chrono>
#include <limits>

#include "absl/strings/str_cat.h"
#include "services/base/status.h"
#include "services/rpc/identity.h"
#include "services/rpc/status.h"

namespace expertmesh::cli {

LaneStream::LaneStream(const InferenceServer& server, std::span<const uint32_t> prompt,
                       uint32_t tokens, const std::string& version)
    : address_(server.address()), wanted_(tokens) {
  inference::v1::GenerateRequest request;
  request.mutable_model()->set_model(server.model());
  request.add_segments()->mutable_tokens()->mutable_ids()->Add(prompt.begin(), prompt.end());
  request.set_max_tokens(tokens);
  request.set_engram_version(version);
  request.mutable_debug()->set_ignore_eos(true);
  request.mutable_debug()->set_return_logits_hash(true);
  rpc::PrepareClient(context_, {}, std::chrono::seconds(server.timeout_s()));
  reader_ = server.stub().Generate(&context_, request);
}

LaneStream::~LaneStream() {
  if (finished_) return;
  context_.TryCancel();
  reader_->Finish();
}

bool LaneStream::Read(size_t count) {
  inference::v1::GenerateResponse event;
  while (count > 0) {
    if (!reader_->Read(&event)) return false;
    if (event.has_started()) version_ = event.started().engram_version();
    if (!event.has_token()) continue;
    hashes_.push_back(event.token().logits_hash());
    --count;
  }
  return true;
}

absl::Status LaneStream::Finish() {
  Read(std::numeric_limits<size_t>::max());
  finished_ = true;
  EM_RETURN_IF_ERROR(
      base::Annotate(rpc::FromGrpcStatus(reader_->Finish()), address_ + ": the lane: "));
  if (hashes_.size() == wanted_) return absl::OkStatus();
  return base::Error(base::Reason::kInternal,
                     absl::StrCat(address_, ": the lane ended after ", hashes_.size(), " of ",
                                  wanted_, " tokens"));
}

}  // namespace expertmesh::cli

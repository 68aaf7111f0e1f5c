// Dispatch and combine frames (docs/protocol.md §1): an error with a frame's reason, or a batch
// whose spans and ids hold what the page promises.
#include <algorithm>
#include <memory>
#include <vector>

#include "google/protobuf/stubs/logging.h"
#include "services/base/crc32c.h"
#include "services/base/status.h"
#include "services/transport/frame.h"
#include "tests/fuzz/fuzz.h"

namespace expertmesh::fuzz {
namespace {

void RequireFrameReason(const absl::Status& status) {
  const base::Reason reason = base::ReasonOf(status);
  Require(reason == base::Reason::kFrameVersion || reason == base::Reason::kFrameMalformed ||
              reason == base::Reason::kFrameChecksum || reason == base::Reason::kNonFinite ||
              reason == base::Reason::kProfileMismatch,
          "a frame's reason");
}

void CheckRequest(transport::Slices slices) {
  auto pool = std::make_shared<transport::BufferPool>();
  auto frame = transport::ParseDispatchFrame(slices, *pool);
  if (!frame.ok()) {
    RequireFrameReason(frame.status());
    return;
  }
  // The checksum is mended, so that the checks behind it are reached as well.
  for (const bool mended : {false, true}) {
    if (mended) {
      frame->header.set_protocol_version(transport::kProtocolVersion);
      frame->header.set_payload_bytes(frame->payload.size());
      frame->header.set_payload_crc32c(base::Crc32c(frame->payload.span()));
    }
    auto batch = transport::CheckDispatch(*frame);
    if (!batch.ok()) {
      RequireFrameReason(batch.status());
      continue;
    }
    Require(batch->row_offsets.size() == frame->header.row_count() + size_t{1}, "offsets");
    Require(batch->row_offsets.back() == batch->expert_ids.size(), "entries");
    Require(batch->expert_weights.size() == batch->expert_ids.size(), "weights");
    Require(batch->partials.size() == frame->header.partial_count(), "partials");
  }
}

void CheckAnswer(transport::Slices slices) {
  auto pool = std::make_shared<transport::BufferPool>();
  auto frame = transport::ParseCombineFrame(slices, *pool);
  if (!frame.ok()) return RequireFrameReason(frame.status());
  for (const bool mended : {false, true}) {
    if (mended) {
      frame->header.clear_status();
      frame->header.set_protocol_version(transport::kProtocolVersion);
      frame->header.set_payload_bytes(frame->payload.size());
      frame->header.set_payload_crc32c(base::Crc32c(frame->payload.span()));
    }
    const size_t partials = frame->header.partial_count();
    const size_t hidden = frame->header.hidden_size();
    if (transport::CheckCombine(*frame, partials, hidden).ok()) {
      Require(frame->sums().size() == partials * hidden, "sums");
    }
  }
}

}  // namespace
}  // namespace expertmesh::fuzz

extern "C" int LLVMFuzzerInitialize(int*, char***) {
  google::protobuf::SetLogHandler(nullptr);  // it would print a line per bad string
  return 0;
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace expertmesh::fuzz;
  const std::span<const std::byte> bytes = Bytes(data, size);
  const size_t cut = std::min<size_t>(size, size > 0 ? data[size - 1] : 0);
  const std::vector<std::span<const std::byte>> slices = {bytes.first(cut), {}, bytes.subspan(cut)};
  CheckRequest(slices);
  CheckAnswer(slices);
  return 0;
}

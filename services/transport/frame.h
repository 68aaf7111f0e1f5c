// Dispatch and combine frames: the bytes of docs/protocol.md §1, written and checked by hand. Knows
// protobuf for the headers, but no gRPC.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "expertmesh/expert/v1/expert.pb.h"
#include "services/base/expert_batch.h"
#include "services/transport/buffer_pool.h"

namespace expertmesh::transport {

using expert::v1::CombineHeader;
using expert::v1::DispatchHeader;

inline constexpr uint32_t kProtocolVersion = 2;
inline constexpr size_t kFrameBytesMax = size_t{64} << 20;

/// A request: header and payload (rows, CSR, partial list).
struct DispatchFrame {
  DispatchHeader header;
  Buffer payload;
};

/// An answer: header and f32 sums [partial_count, hidden_size], or a status and no payload.
struct CombineFrame {
  CombineHeader header;
  Buffer payload;
  std::span<const float> sums() const {
    return {reinterpret_cast<const float*>(payload.data()), payload.size() / sizeof(float)};
  }
};

/// Offsets of the payload's parts for given counts. All in bytes.
struct PayloadLayout {
  size_t rows = 0;
  size_t row_scales = 0;  // with kInt8Row; else no bytes
  size_t row_offsets = 0;
  size_t expert_ids = 0;
  size_t expert_weights = 0;
  size_t partials = 0;
  size_t bytes = 0;
};
PayloadLayout LayoutOf(size_t row_count, size_t hidden, base::Dtype dtype, size_t entries,
                       size_t partials);

base::Dtype FromProto(common::v1::Dtype dtype);  // kF32 for anything but BF16 and INT8_ROW
common::v1::Dtype ToProto(base::Dtype dtype);

/// Builds the payload from f32 rows: `row_index[i]` picks row i of the frame from `rows`
/// [*, hidden]; rows are rounded to `dtype` (nearest even; kInt8Row by base/int8_row.h). Fills
/// counts, length and CRC of `header`.
DispatchFrame BuildDispatch(DispatchHeader header, std::span<const float> rows, size_t hidden,
                            std::span<const uint32_t> row_index, base::Dtype dtype,
                            std::span<const uint32_t> row_offsets,
                            std::span<const uint16_t> expert_ids,
                            std::span<const float> expert_weights,
                            std::span<const base::PartialNode> partials, BufferPool& pool);

/// Checks version, sizes, CRC, order and coverage; the spans of the result point into the payload.
/// Errors: kFrameVersion, kFrameMalformed, kFrameChecksum, kNonFinite.
absl::StatusOr<base::ExpertBatch> CheckDispatch(const DispatchFrame& frame);

/// An answer with sums; fills length and CRC of the header.
CombineFrame BuildCombine(CombineHeader header, Buffer sums);
/// An answer with a status instead.
CombineFrame BuildRefusal(uint64_t call_id, const absl::Status& status);
/// OK if the frame holds the wanted sums, all finite; else its status or what is wrong with it.
absl::Status CheckCombine(const CombineFrame& frame, size_t partial_count, size_t hidden);

/// One message as it came from the wire, in slices.
using Slices = std::span<const std::span<const std::byte>>;
/// Tag and length bytes that precede header and payload on the wire.
std::string MessagePrefix(const std::string& header, size_t payload_bytes);

/// Puts the frame of one message together as its bytes come in: the payload goes straight into the
/// buffer that it is computed from. Frame is DispatchFrame or CombineFrame.
template <class Frame>
class FrameReader {
 public:
  /// Of a message of so many bytes.
  FrameReader(size_t message_bytes, BufferPool& pool) : left_(message_bytes), pool_(pool) {}
  /// The next bytes of the message, never more than it has. What a malformed one brings is dropped.
  void Feed(std::span<const std::byte> bytes);
  size_t left() const { return left_; }
  /// After the last byte. kFrameMalformed.
  absl::StatusOr<Frame> Finish();

 private:
  enum class Part {
    kHeaderTag,
    kHeaderLength,
    kHeader,
    kPayloadTag,
    kPayloadLength,
    kPayload,
    kBad
  };
  void Fail(std::string_view what);
  void TakeVarint(std::span<const std::byte>& bytes);
  void VarintRead();
  void TakeHeader(std::span<const std::byte>& bytes);
  void HeaderRead();
  void TakePayload(std::span<const std::byte>& bytes);

  size_t left_;  // bytes of the message that have not been fed
  BufferPool& pool_;
  Part part_ = Part::kHeaderTag;
  uint64_t varint_ = 0;
  int varint_bits_ = 0;
  size_t wanted_ = 0;  // bytes of the header or the payload
  size_t filled_ = 0;
  std::string header_;
  Frame frame_;
  absl::Status status_;
};

absl::StatusOr<DispatchFrame> ParseDispatchFrame(Slices slices, BufferPool& pool);
absl::StatusOr<CombineFrame> ParseCombineFrame(Slices slices, BufferPool& pool);

}  // namespace expertmesh::transport

#include "services/transport/frame.h"

#include <bit>
#include <cmath>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "services/base/crc32c.h"
#include "services/base/int8_row.h"
#include "services/base/status.h"
#include "services/rpc/status.h"

namespace expertmesh::transport {
namespace {

using base::Error;
using base::Reason;

// The rows begin the payload, which is aligned for vectors; the lists behind them need less.
constexpr size_t kPartAlignment = 8;
constexpr size_t AlignUp(size_t bytes) {
  return (bytes + kPartAlignment - 1) / kPartAlignment * kPartAlignment;
}

uint16_t ToBf16(float value) {
  const auto bits = std::bit_cast<uint32_t>(value);
  const uint32_t quiet_nan = (bits >> 16) | 0x40u;
  const uint32_t rounded = (bits + 0x7FFFu + ((bits >> 16) & 1u)) >> 16;
  return static_cast<uint16_t>((bits & 0x7FFFFFFFu) > 0x7F800000u ? quiet_nan : rounded);
}

absl::Status Malformed(std::string_view what) {
  return Error(Reason::kFrameMalformed, absl::StrCat("dispatch frame: ", std::string(what)));
}

// Loops over rows run in blocks of this many elements, whose fixed length the compiler can put into
// vectors.
constexpr size_t kBlock = 64;

void RoundToBf16(const float* from, size_t count, uint16_t* to) {
  size_t i = 0;
  for (; i + kBlock <= count; i += kBlock) {
    for (size_t j = 0; j < kBlock; ++j) to[i + j] = ToBf16(from[i + j]);
  }
  for (; i < count; ++i) to[i] = ToBf16(from[i]);
}

// No value has all bits of `exponent`, which NaN and infinity have.
template <class Bits>
bool NoneHasAll(const Bits* values, size_t count, Bits exponent) {
  Bits found = 0;
  size_t i = 0;
  for (; i + kBlock <= count; i += kBlock) {
    for (size_t j = 0; j < kBlock; ++j) {
      found |= static_cast<Bits>((values[i + j] & exponent) == exponent ? 1 : 0);
    }
  }
  for (; i < count; ++i) found |= static_cast<Bits>((values[i] & exponent) == exponent ? 1 : 0);
  return found == 0;
}

template <class T>
std::span<const T> PartOf(const Buffer& payload, size_t offset, size_t count) {
  return {reinterpret_cast<const T*>(payload.data() + offset), count};
}

bool AllFinite(const std::byte* rows, size_t count, base::Dtype dtype) {
  if (dtype == base::Dtype::kBf16) {
    return NoneHasAll<uint16_t>(reinterpret_cast<const uint16_t*>(rows), count, 0x7F80u);
  }
  return NoneHasAll<uint32_t>(reinterpret_cast<const uint32_t*>(rows), count, 0x7F800000u);
}

absl::Status CheckInt8Rows(const base::ExpertBatch& batch, size_t hidden) {
  for (const float scale : batch.row_scales) {
    if (!std::isfinite(scale)) return Error(Reason::kNonFinite, "a row's scale is not finite");
    if (scale < 0) return Malformed("a row's scale is negative");
  }
  const auto* codes = reinterpret_cast<const int8_t*>(batch.rows);
  bool lowest = false;
  for (size_t i = 0; i < batch.row_count * hidden; ++i) lowest |= codes[i] == INT8_MIN;
  if (lowest) return Malformed("-128 is no code of a row");
  return absl::OkStatus();
}

absl::Status CheckRowExperts(const base::ExpertBatch& batch) {
  for (size_t row = 0; row < batch.row_count; ++row) {
    const uint32_t begin = batch.row_offsets[row];
    const uint32_t end = batch.row_offsets[row + 1];
    if (begin > end || end > batch.expert_ids.size()) return Malformed("row offsets run backwards");
    for (uint32_t i = begin + 1; i < end; ++i) {
      if (batch.expert_ids[i] <= batch.expert_ids[i - 1]) {
        return Malformed("expert ids of a row are not ascending");
      }
    }
  }
  for (float weight : batch.expert_weights) {
    if (!std::isfinite(weight)) return Error(Reason::kNonFinite, "an expert weight is not finite");
  }
  return absl::OkStatus();
}

// Every listed expert of a row is in exactly one node, and every node holds at least one.
absl::Status CheckPartials(const base::ExpertBatch& batch) {
  size_t next = 0;
  for (size_t row = 0; row < batch.row_count; ++row) {
    uint32_t at = batch.row_offsets[row];
    const uint32_t end = batch.row_offsets[row + 1];
    while (next < batch.partials.size() && batch.partials[next].row == row) {
      const base::PartialNode& node = batch.partials[next++];
      if (node.level > 16 || node.first_expert % (1u << node.level) != 0) {
        return Malformed("a partial is not a node of the tree");
      }
      const uint32_t first = at;
      const uint32_t last_id = node.first_expert + (1u << node.level);
      while (at < end && batch.expert_ids[at] < last_id) {
        if (batch.expert_ids[at] < node.first_expert) return Malformed("partials leave a gap");
        ++at;
      }
      if (at == first) return Malformed("a partial covers no expert of its row");
    }
    if (at != end) return Malformed("partials do not cover the experts of a row");
  }
  if (next != batch.partials.size()) return Malformed("partials are out of order");
  return absl::OkStatus();
}

absl::Status CheckLanes(const DispatchHeader& header) {
  if (header.lane_row_counts_size() != header.lane_budgets_us_size()) {
    return Malformed("lane_row_counts and lane_budgets_us differ in length");
  }
  uint64_t rows = 0;
  for (uint32_t count : header.lane_row_counts()) rows += count;
  if (rows != header.row_count()) return Malformed("lane_row_counts do not sum to row_count");
  return absl::OkStatus();
}

constexpr uint64_t kHeaderTag = 0x0A;   // field 1, length-delimited
constexpr uint64_t kPayloadTag = 0x7A;  // field 15, length-delimited
constexpr size_t kHeaderBytesMax = size_t{1} << 20;
constexpr int kVarintBitsMax = 35;

template <class Frame>
absl::StatusOr<Frame> ParseFrame(Slices slices, BufferPool& pool) {
  size_t bytes = 0;
  for (const auto& slice : slices) bytes += slice.size();
  FrameReader<Frame> reader(bytes, pool);
  for (const auto& slice : slices) reader.Feed(slice);
  return reader.Finish();
}

}  // namespace

PayloadLayout LayoutOf(size_t row_count, size_t hidden, base::Dtype dtype, size_t entries,
                       size_t partials) {
  PayloadLayout layout;
  layout.row_scales = AlignUp(row_count * hidden * DtypeBytes(dtype));
  const size_t scales = dtype == base::Dtype::kInt8Row ? row_count : 0;
  layout.row_offsets = AlignUp(layout.row_scales + scales * sizeof(float));
  layout.expert_ids = AlignUp(layout.row_offsets + (row_count + 1) * sizeof(uint32_t));
  layout.expert_weights = AlignUp(layout.expert_ids + entries * sizeof(uint16_t));
  layout.partials = AlignUp(layout.expert_weights + entries * sizeof(float));
  layout.bytes = layout.partials + partials * sizeof(base::PartialNode);
  return layout;
}

base::Dtype FromProto(common::v1::Dtype dtype) {
  return dtype == common::v1::DTYPE_BF16       ? base::Dtype::kBf16
         : dtype == common::v1::DTYPE_INT8_ROW ? base::Dtype::kInt8Row
                                               : base::Dtype::kF32;
}
common::v1::Dtype ToProto(base::Dtype dtype) {
  return dtype == base::Dtype::kBf16      ? common::v1::DTYPE_BF16
         : dtype == base::Dtype::kInt8Row ? common::v1::DTYPE_INT8_ROW
                                          : common::v1::DTYPE_F32;
}

DispatchFrame BuildDispatch(DispatchHeader header, std::span<const float> rows, size_t hidden,
                            std::span<const uint32_t> row_index, base::Dtype dtype,
                            std::span<const uint32_t> row_offsets,
                            std::span<const uint16_t> expert_ids,
                            std::span<const float> expert_weights,
                            std::span<const base::PartialNode> partials, BufferPool& pool) {
  const PayloadLayout layout =
      LayoutOf(row_index.size(), hidden, dtype, expert_ids.size(), partials.size());
  DispatchFrame frame;
  frame.payload = pool.Acquire(layout.bytes);
  std::byte* out = frame.payload.data();
  size_t end = 0;  // of the part written last; the gap up to the next part is zeroed
  const auto put = [&](size_t offset, const void* data, size_t bytes) {
    std::memset(out + end, 0, offset - end);
    if (bytes > 0) std::memcpy(out + offset, data, bytes);
    end = offset + bytes;
  };
  auto* scales = reinterpret_cast<float*>(out + layout.row_scales);
  for (size_t i = 0; i < row_index.size(); ++i) {
    const float* row = rows.data() + row_index[i] * hidden;
    std::byte* to = out + i * hidden * DtypeBytes(dtype);
    if (dtype == base::Dtype::kF32) {
      std::memcpy(to, row, hidden * sizeof(float));
    } else if (dtype == base::Dtype::kInt8Row) {
      scales[i] = base::QuantiseInt8Row({row, hidden}, reinterpret_cast<int8_t*>(to));
    } else {
      RoundToBf16(row, hidden, reinterpret_cast<uint16_t*>(to));
    }
  }
  end = row_index.size() * hidden * DtypeBytes(dtype);
  if (dtype == base::Dtype::kInt8Row) {
    std::memset(out + end, 0, layout.row_scales - end);
    end = layout.row_scales + row_index.size() * sizeof(float);
  }
  put(layout.row_offsets, row_offsets.data(), row_offsets.size_bytes());
  put(layout.expert_ids, expert_ids.data(), expert_ids.size_bytes());
  put(layout.expert_weights, expert_weights.data(), expert_weights.size_bytes());
  put(layout.partials, partials.data(), partials.size_bytes());

  header.set_protocol_version(kProtocolVersion);
  header.set_row_dtype(ToProto(dtype));
  header.set_result_dtype(common::v1::DTYPE_F32);
  header.set_row_count(static_cast<uint32_t>(row_index.size()));
  header.set_hidden_size(static_cast<uint32_t>(hidden));
  header.set_expert_entry_count(static_cast<uint32_t>(expert_ids.size()));
  header.set_partial_count(static_cast<uint32_t>(partials.size()));
  header.set_payload_bytes(layout.bytes);
  header.set_payload_crc32c(base::Crc32c(frame.payload.span()));
  frame.header = std::move(header);
  return frame;
}

absl::StatusOr<base::ExpertBatch> CheckDispatch(const DispatchFrame& frame) {
  const DispatchHeader& h = frame.header;
  if (h.protocol_version() != kProtocolVersion) {
    return Error(Reason::kFrameVersion, absl::StrCat("frame version ", h.protocol_version(),
                                                     "; this worker speaks ", kProtocolVersion));
  }
  if (ToProto(FromProto(h.row_dtype())) != h.row_dtype()) {
    return Error(Reason::kProfileMismatch, "row_dtype is neither F32 nor BF16 nor INT8_ROW");
  }
  if (h.result_dtype() != common::v1::DTYPE_F32) {
    return Error(Reason::kProfileMismatch, "result_dtype is not F32");
  }
  if (h.row_count() == 0 || h.hidden_size() == 0 || h.row_count() > kFrameBytesMax / 2 ||
      h.hidden_size() > kFrameBytesMax / 2 || h.expert_entry_count() > kFrameBytesMax ||
      h.partial_count() > kFrameBytesMax) {
    return Malformed("a count is zero or absurd");
  }
  const base::Dtype dtype = FromProto(h.row_dtype());
  const PayloadLayout layout =
      LayoutOf(h.row_count(), h.hidden_size(), dtype, h.expert_entry_count(), h.partial_count());
  if (layout.bytes != h.payload_bytes() || layout.bytes != frame.payload.size()) {
    return Malformed(absl::StrCat("counts give ", layout.bytes, " bytes, the header says ",
                                  h.payload_bytes(), ", received ", frame.payload.size()));
  }
  if (const uint32_t crc = base::Crc32c(frame.payload.span()); crc != h.payload_crc32c()) {
    return Error(Reason::kFrameChecksum, "the payload checksum of a dispatch frame does not match");
  }
  base::ExpertBatch batch;
  batch.layer = h.layer();
  batch.row_count = h.row_count();
  batch.row_dtype = dtype;
  batch.rows = frame.payload.data();
  if (dtype == base::Dtype::kInt8Row) {
    batch.row_scales = PartOf<float>(frame.payload, layout.row_scales, h.row_count());
  }
  batch.row_offsets = PartOf<uint32_t>(frame.payload, layout.row_offsets, h.row_count() + 1);
  batch.expert_ids = PartOf<uint16_t>(frame.payload, layout.expert_ids, h.expert_entry_count());
  batch.expert_weights =
      PartOf<float>(frame.payload, layout.expert_weights, h.expert_entry_count());
  batch.partials = PartOf<base::PartialNode>(frame.payload, layout.partials, h.partial_count());
  if (batch.row_offsets.front() != 0 || batch.row_offsets.back() != h.expert_entry_count()) {
    return Malformed("row offsets do not span the expert list");
  }
  EM_RETURN_IF_ERROR(CheckRowExperts(batch));
  EM_RETURN_IF_ERROR(CheckPartials(batch));
  EM_RETURN_IF_ERROR(CheckLanes(h));
  if (dtype == base::Dtype::kInt8Row) {
    EM_RETURN_IF_ERROR(CheckInt8Rows(batch, h.hidden_size()));
  } else if (!AllFinite(batch.rows, batch.row_count * h.hidden_size(), dtype)) {
    return Error(Reason::kNonFinite, "a row holds a NaN or an infinity");
  }
  return batch;
}

CombineFrame BuildCombine(CombineHeader header, Buffer sums) {
  header.set_protocol_version(kProtocolVersion);
  header.set_result_dtype(common::v1::DTYPE_F32);
  header.set_payload_bytes(sums.size());
  header.set_payload_crc32c(base::Crc32c(sums.span()));
  return {std::move(header), std::move(sums)};
}

CombineFrame BuildRefusal(uint64_t call_id, const absl::Status& status) {
  CombineFrame frame;
  frame.header.set_protocol_version(kProtocolVersion);
  frame.header.set_call_id(call_id);
  *frame.header.mutable_status() = rpc::ToRpcStatus(status);
  return frame;
}

absl::Status CheckCombine(const CombineFrame& frame, size_t partial_count, size_t hidden) {
  const CombineHeader& h = frame.header;
  if (h.has_status() && h.status().code() != 0) return rpc::FromRpcStatus(h.status());
  if (h.protocol_version() != kProtocolVersion) {
    return Error(Reason::kFrameVersion,
                 absl::StrCat("combine frame version ", h.protocol_version()));
  }
  if (h.partial_count() != partial_count || h.hidden_size() != hidden ||
      h.payload_bytes() != frame.payload.size() ||
      frame.payload.size() != partial_count * hidden * sizeof(float)) {
    return Error(Reason::kFrameMalformed, "combine frame: counts do not match the call");
  }
  if (base::Crc32c(frame.payload.span()) != h.payload_crc32c()) {
    return Error(Reason::kFrameChecksum, "the payload checksum of a combine frame does not match");
  }
  if (!AllFinite(frame.payload.data(), partial_count * hidden, base::Dtype::kF32)) {
    return Error(Reason::kNonFinite, "a partial sum holds a NaN or an infinity");
  }
  return absl::OkStatus();
}

std::string MessagePrefix(const std::string& header, size_t payload_bytes) {
  std::string prefix;
  const auto varint = [&](uint64_t value) {
    for (; value >= 0x80; value >>= 7) prefix.push_back(static_cast<char>((value & 0x7F) | 0x80));
    prefix.push_back(static_cast<char>(value));
  };
  varint(kHeaderTag);
  varint(header.size());
  prefix += header;
  if (payload_bytes > 0) {
    varint(kPayloadTag);
    varint(payload_bytes);
  }
  return prefix;
}

template <class Frame>
void FrameReader<Frame>::Fail(std::string_view what) {
  status_ = Malformed(what);
  part_ = Part::kBad;
}

template <class Frame>
void FrameReader<Frame>::Feed(std::span<const std::byte> bytes) {
  left_ -= bytes.size();  // what is still to come after these
  while (!bytes.empty() && part_ != Part::kBad) {
    switch (part_) {
      case Part::kHeader:
        TakeHeader(bytes);
        break;
      case Part::kPayload:
        TakePayload(bytes);
        break;
      default:
        TakeVarint(bytes);
        break;
    }
  }
}

template <class Frame>
void FrameReader<Frame>::TakeVarint(std::span<const std::byte>& bytes) {
  const auto byte = static_cast<uint8_t>(bytes.front());
  bytes = bytes.subspan(1);
  varint_ |= static_cast<uint64_t>(byte & 0x7F) << varint_bits_;
  varint_bits_ += 7;
  const bool more = (byte & 0x80) != 0;
  if (more && varint_bits_ >= kVarintBitsMax) return Fail("a length is cut off");
  if (more) return;
  left_ += bytes.size();
  VarintRead();
  left_ -= bytes.size();
  varint_ = 0;
  varint_bits_ = 0;
}

// `left_` counts all bytes of the message behind the number.
template <class Frame>
void FrameReader<Frame>::VarintRead() {
  switch (part_) {
    case Part::kHeaderTag:
      if (varint_ != kHeaderTag) return Fail("the header does not come first, or is cut off");
      part_ = Part::kHeaderLength;
      return;
    case Part::kHeaderLength:
      if (varint_ > std::min(left_, kHeaderBytesMax)) {
        return Fail("the header does not come first, or is cut off");
      }
      wanted_ = varint_;
      part_ = Part::kHeader;
      if (wanted_ == 0) HeaderRead();
      return;
    case Part::kPayloadTag:
      if (varint_ != kPayloadTag) return Fail("something else than the payload follows the header");
      part_ = Part::kPayloadLength;
      return;
    default:
      if (varint_ != left_ || varint_ > kFrameBytesMax) {
        return Fail("the payload is cut off, too long, or followed by more");
      }
      frame_.payload = pool_.Acquire(varint_);
      filled_ = 0;
      part_ = Part::kPayload;
      return;
  }
}

template <class Frame>
void FrameReader<Frame>::TakeHeader(std::span<const std::byte>& bytes) {
  const size_t count = std::min(bytes.size(), wanted_ - header_.size());
  header_.append(reinterpret_cast<const char*>(bytes.data()), count);
  bytes = bytes.subspan(count);
  if (header_.size() == wanted_) HeaderRead();
}

template <class Frame>
void FrameReader<Frame>::HeaderRead() {
  if (!frame_.header.ParseFromString(header_)) return Fail("the header cannot be parsed");
  part_ = Part::kPayloadTag;
}

// The payload's length is what was left of the message: no byte can be too many.
template <class Frame>
void FrameReader<Frame>::TakePayload(std::span<const std::byte>& bytes) {
  std::memcpy(frame_.payload.data() + filled_, bytes.data(), bytes.size());
  filled_ += bytes.size();
  bytes = {};
}

template <class Frame>
absl::StatusOr<Frame> FrameReader<Frame>::Finish() {
  const bool whole = part_ == Part::kPayload ? filled_ == frame_.payload.size()
                                             : part_ == Part::kPayloadTag && varint_bits_ == 0;
  if (status_.ok() && !whole) Fail("the message is cut off");
  if (!status_.ok()) return status_;
  return std::move(frame_);
}

template class FrameReader<DispatchFrame>;
template class FrameReader<CombineFrame>;

absl::StatusOr<DispatchFrame> ParseDispatchFrame(Slices slices, BufferPool& pool) {
  return ParseFrame<DispatchFrame>(slices, pool);
}
absl::StatusOr<CombineFrame> ParseCombineFrame(Slices slices, BufferPool& pool) {
  return ParseFrame<CombineFrame>(slices, pool);
}

}  // namespace expertmesh::transport

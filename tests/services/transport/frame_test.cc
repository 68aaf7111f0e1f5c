// The bytes of docs/protocol.md §1: round trip, and every way a frame can be wrong.
#include "services/transport/frame.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <functional>
#include <limits>
#include <random>

#include "services/base/crc32c.h"
#include "services/base/int8_row.h"
#include "services/base/status.h"

namespace expertmesh::transport {
namespace {

using base::Reason;

constexpr size_t kHidden = 24;

struct Given {
  std::vector<float> rows;
  std::vector<uint32_t> index;
  std::vector<uint32_t> offsets{0};
  std::vector<uint16_t> experts;
  std::vector<float> weights;
  std::vector<base::PartialNode> partials;
};

Given RandomRows(size_t rows, uint32_t seed) {
  std::mt19937 rng(seed);
  std::normal_distribution<float> normal;
  Given given;
  for (uint32_t r = 0; r < rows; ++r) {
    given.index.push_back(r);
    for (size_t c = 0; c < kHidden; ++c) given.rows.push_back(normal(rng));
    std::vector<uint16_t> chosen;
    for (uint16_t e = 0; e < 16; ++e) {
      if (rng() % 3 == 0) chosen.push_back(e);
    }
    if (chosen.empty()) chosen.push_back(3);
    base::FoldRow(r, chosen, std::vector<uint16_t>(chosen.size(), 0), 0, 16, given.partials);
    given.experts.insert(given.experts.end(), chosen.begin(), chosen.end());
    given.weights.insert(given.weights.end(), chosen.size(), 0.5f);
    given.offsets.push_back(static_cast<uint32_t>(given.experts.size()));
  }
  return given;
}

class FrameTest : public testing::Test {
 protected:
  DispatchFrame Build(base::Dtype dtype = base::Dtype::kF32) {
    DispatchHeader header;
    header.set_call_id(42);
    header.add_lane_row_counts(static_cast<uint32_t>(given_.index.size()));
    header.add_lane_budgets_us(1000);
    return BuildDispatch(header, given_.rows, kHidden, given_.index, dtype, given_.offsets,
                         given_.experts, given_.weights, given_.partials, *pool_);
  }
  // Applies `spoil` to a good frame, mends the checksum, and returns why it is refused.
  Reason Refused(const std::function<void(DispatchFrame&, const PayloadLayout&)>& spoil,
                 bool mend_checksum = true) {
    DispatchFrame frame = Build();
    spoil(frame, LayoutOf(given_.index.size(), kHidden, base::Dtype::kF32, given_.experts.size(),
                          given_.partials.size()));
    if (mend_checksum) frame.header.set_payload_crc32c(base::Crc32c(frame.payload.span()));
    return base::ReasonOf(CheckDispatch(frame).status());
  }
  template <class T>
  static T* At(DispatchFrame& frame, size_t offset) {
    return reinterpret_cast<T*>(frame.payload.data() + offset);
  }

  std::shared_ptr<BufferPool> pool_ = std::make_shared<BufferPool>();
  Given given_ = RandomRows(5, 1);
};

TEST_F(FrameTest, RoundTripThroughTheWireInAnySlices) {
  const DispatchFrame frame = Build(base::Dtype::kBf16);
  std::string wire =
      MessagePrefix(frame.header.SerializeAsString(), frame.payload.size()) +
      std::string(reinterpret_cast<const char*>(frame.payload.data()), frame.payload.size());
  expert::v1::DispatchRequest typed;  // any protobuf reader understands the same bytes
  ASSERT_TRUE(typed.ParseFromString(wire));
  EXPECT_EQ(typed.header().call_id(), 42u);
  EXPECT_EQ(typed.payload().size(), frame.payload.size());
  for (size_t step : {size_t{1}, size_t{7}, size_t{100}, wire.size()}) {
    std::vector<std::span<const std::byte>> slices;
    for (size_t at = 0; at < wire.size(); at += step) {
      slices.push_back(
          std::as_bytes(std::span(wire).subspan(at, std::min(step, wire.size() - at))));
    }
    const auto parsed = ParseDispatchFrame(slices, *pool_);
    ASSERT_TRUE(parsed.ok()) << parsed.status();
    EXPECT_EQ(reinterpret_cast<uintptr_t>(parsed->payload.data()) % kPayloadAlignment, 0u);
    const auto batch = CheckDispatch(*parsed);
    ASSERT_TRUE(batch.ok()) << batch.status();
    EXPECT_EQ(batch->row_count, 5u);
    EXPECT_TRUE(std::equal(batch->expert_ids.begin(), batch->expert_ids.end(),
                           given_.experts.begin(), given_.experts.end()));
    EXPECT_TRUE(std::equal(batch->partials.begin(), batch->partials.end(), given_.partials.begin(),
                           given_.partials.end()));
  }
}

TEST_F(FrameTest, Int8RowsTravelWithOneScaleEach) {
  for (size_t i = 0; i < kHidden; ++i) given_.rows[i] = 0.0f;
  const DispatchFrame frame = Build(base::Dtype::kInt8Row);
  const auto batch = CheckDispatch(frame);
  ASSERT_TRUE(batch.ok()) << batch.status();
  EXPECT_EQ(batch->row_dtype, base::Dtype::kInt8Row);
  ASSERT_EQ(batch->row_scales.size(), 5u);
  EXPECT_EQ(batch->row_scales[0], 0.0f);
  for (size_t r = 0; r < 5; ++r) {
    std::vector<int8_t> codes(kHidden);
    const float scale = base::QuantiseInt8Row(
        std::span<const float>(given_.rows).subspan(r * kHidden, kHidden), codes.data());
    EXPECT_EQ(batch->row_scales[r], scale);
    EXPECT_EQ(std::memcmp(batch->rows + r * kHidden, codes.data(), kHidden), 0);
  }
}

TEST_F(FrameTest, BadInt8RowsAreRefused) {
  const auto refused = [&](size_t offset, auto value) {
    DispatchFrame frame = Build(base::Dtype::kInt8Row);
    const PayloadLayout at = LayoutOf(given_.index.size(), kHidden, base::Dtype::kInt8Row,
                                      given_.experts.size(), given_.partials.size());
    std::memcpy(frame.payload.data() + (sizeof(value) == 1 ? offset : at.row_scales + offset),
                &value, sizeof(value));
    frame.header.set_payload_crc32c(base::Crc32c(frame.payload.span()));
    return base::ReasonOf(CheckDispatch(frame).status());
  };
  EXPECT_EQ(refused(3, int8_t{-128}), Reason::kFrameMalformed);
  EXPECT_EQ(refused(4, -1.0f), Reason::kFrameMalformed);
  EXPECT_EQ(refused(4, std::numeric_limits<float>::infinity()), Reason::kNonFinite);
  EXPECT_EQ(refused(8, std::nanf("")), Reason::kNonFinite);
  given_.rows[1] = std::nanf("");
  EXPECT_EQ(base::ReasonOf(CheckDispatch(Build(base::Dtype::kInt8Row)).status()),
            Reason::kNonFinite);
}

TEST_F(FrameTest, RowsAreRoundedToNearestEven) {
  given_ = RandomRows(1, 2);
  const uint32_t cases[][2] = {{0x3F808000u, 0x3F80u},
                               {0x3F818000u, 0x3F82u},
                               {0x3F808001u, 0x3F81u},
                               {0x80000000u, 0x8000u}};
  for (const auto& c : cases) {
    std::memcpy(&given_.rows[0], &c[0], 4);
    const DispatchFrame frame = Build(base::Dtype::kBf16);
    uint16_t stored = 0;
    std::memcpy(&stored, frame.payload.data(), 2);
    EXPECT_EQ(stored, c[1]);
  }
}

TEST_F(FrameTest, VersionSizeAndChecksumAreRefusedWithTheirReasons) {
  EXPECT_EQ(Refused([](auto&, auto&) {}), Reason::kUnspecified);
  EXPECT_EQ(Refused([](auto& f, auto&) { f.header.set_protocol_version(kProtocolVersion + 1); }),
            Reason::kFrameVersion);
  EXPECT_EQ(Refused([](auto& f, auto&) { f.header.set_payload_bytes(64); }),
            Reason::kFrameMalformed);
  EXPECT_EQ(Refused([](auto& f, auto&) { f.header.set_row_count(6); }), Reason::kFrameMalformed);
  EXPECT_EQ(Refused([](auto& f, auto&) { f.header.set_row_count(0xFFFFFFFF); }),
            Reason::kFrameMalformed);
  EXPECT_EQ(Refused([](auto& f, auto&) { f.header.set_hidden_size(0); }), Reason::kFrameMalformed);
  EXPECT_EQ(Refused([](auto& f, auto&) { *f.payload.data() ^= std::byte{1}; }, false),
            Reason::kFrameChecksum);
  EXPECT_EQ(Refused([](auto& f, auto&) { f.header.set_row_dtype(common::v1::DTYPE_UNSPECIFIED); }),
            Reason::kProfileMismatch);
}

TEST_F(FrameTest, ContradictingPartsAreRefused) {
  EXPECT_EQ(Refused([](auto& f, auto& l) { At<uint32_t>(f, l.row_offsets)[0] = 1; }),
            Reason::kFrameMalformed);
  EXPECT_EQ(Refused([](auto& f, auto& l) { At<uint32_t>(f, l.row_offsets)[2] = 1u << 30; }),
            Reason::kFrameMalformed);
  EXPECT_EQ(Refused([](auto& f, auto& l) { At<uint16_t>(f, l.expert_ids)[1] = 0; }),
            Reason::kFrameMalformed);
  EXPECT_EQ(Refused([](auto& f, auto& l) { At<base::PartialNode>(f, l.partials)[0].level = 1; }),
            Reason::kFrameMalformed);
  EXPECT_EQ(Refused([](auto& f, auto& l) { At<base::PartialNode>(f, l.partials)[0].level = 99; }),
            Reason::kFrameMalformed);
  EXPECT_EQ(Refused([](auto& f, auto& l) { At<base::PartialNode>(f, l.partials)[1].row = 0; }),
            Reason::kFrameMalformed);
  EXPECT_EQ(Refused([](auto& f, auto&) { f.header.set_lane_row_counts(0, 4); }),
            Reason::kFrameMalformed);
  EXPECT_EQ(Refused([](auto& f, auto&) { f.header.add_lane_budgets_us(5); }),
            Reason::kFrameMalformed);
}

TEST_F(FrameTest, NonFiniteValuesAreFaults) {
  for (float bad :
       {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
    EXPECT_EQ(Refused([&](auto& f, auto& l) { *At<float>(f, l.rows) = bad; }), Reason::kNonFinite);
    EXPECT_EQ(Refused([&](auto& f, auto& l) { *At<float>(f, l.expert_weights) = bad; }),
              Reason::kNonFinite);
  }
}

TEST_F(FrameTest, TruncatedMessagesNeverParse) {
  const DispatchFrame frame = Build();
  const std::string wire =
      MessagePrefix(frame.header.SerializeAsString(), frame.payload.size()) +
      std::string(reinterpret_cast<const char*>(frame.payload.data()), frame.payload.size());
  const size_t header_end = wire.size() - frame.payload.size() - 3;
  for (size_t length = 0; length < wire.size(); ++length) {
    const std::span<const std::byte> slice = std::as_bytes(std::span(wire).first(length));
    const auto parsed = ParseDispatchFrame({&slice, 1}, *pool_);
    // Cut exactly behind the header, the message is a whole one without a payload: CheckDispatch
    // refuses.
    if (parsed.ok()) {
      EXPECT_LE(length, header_end);
      EXPECT_EQ(base::ReasonOf(CheckDispatch(*parsed).status()), Reason::kFrameMalformed);
    }
  }
}

TEST_F(FrameTest, CombineIsHeldAgainstTheCall) {
  const auto sums = [&](size_t partials) {
    Buffer buffer = pool_->Acquire(partials * kHidden * sizeof(float));
    std::memset(buffer.data(), 0, buffer.size());
    CombineHeader header;
    header.set_partial_count(static_cast<uint32_t>(partials));
    header.set_hidden_size(kHidden);
    return BuildCombine(header, std::move(buffer));
  };
  EXPECT_TRUE(CheckCombine(sums(3), 3, kHidden).ok());
  EXPECT_EQ(base::ReasonOf(CheckCombine(sums(3), 2, kHidden)), Reason::kFrameMalformed);
  CombineFrame frame = sums(3);
  *frame.payload.data() = std::byte{1};
  EXPECT_EQ(base::ReasonOf(CheckCombine(frame, 3, kHidden)), Reason::kFrameChecksum);
  frame = sums(3);
  *reinterpret_cast<float*>(frame.payload.data()) = NAN;
  frame.header.set_payload_crc32c(base::Crc32c(frame.payload.span()));
  EXPECT_EQ(base::ReasonOf(CheckCombine(frame, 3, kHidden)), Reason::kNonFinite);
  EXPECT_EQ(base::ReasonOf(CheckCombine(
                BuildRefusal(7, base::Error(Reason::kExpertNotHosted, "no")), 3, kHidden)),
            Reason::kExpertNotHosted);
}

}  // namespace
}  // namespace expertmesh::transport

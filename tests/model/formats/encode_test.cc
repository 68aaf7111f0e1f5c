// Quantisers: scales worked out by hand, and that a second pass changes nothing.
#include "model/formats/encode.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "model/formats/scalar.h"
#include "services/base/status.h"

namespace expertmesh::model {
namespace {

constexpr MatrixFormat kFp8Large{ValueFormat::kE4m3, ScaleFormat::kF32, 128, 128};
constexpr MatrixFormat kFp8Small{ValueFormat::kE4m3, ScaleFormat::kE8m0, 32, 32};
constexpr MatrixFormat kFp8Row{ValueFormat::kE4m3, ScaleFormat::kE8m0, 1, 32};
constexpr MatrixFormat kFp4{ValueFormat::kE2m1, ScaleFormat::kE8m0, 1, 32};
constexpr MatrixFormat kInt8{ValueFormat::kInt8, ScaleFormat::kF16, 1, 32};
constexpr MatrixFormat kInt8Wide{ValueFormat::kInt8, ScaleFormat::kF16, 1, 128};
constexpr MatrixFormat kInt4{ValueFormat::kInt4, ScaleFormat::kF16, 1, 32};
constexpr MatrixFormat kAll[] = {kFp8Large, kFp8Small, kFp8Row, kFp4, kInt8, kInt8Wide, kInt4};

struct Encoded {
  std::vector<std::byte> values;
  std::vector<std::byte> scales;
  friend bool operator==(const Encoded&, const Encoded&) = default;
};

Encoded Encode(const MatrixFormat& format, const std::vector<float>& rows, uint64_t count) {
  const uint64_t columns = rows.size() / count;
  Encoded out{std::vector<std::byte>(count * format.RowBytes(columns)),
              std::vector<std::byte>(format.ScaleRows(count) * format.ScaleRowBytes(columns))};
  const absl::Status status =
      EncodeRows(format, rows.data(), count, columns, out.values.data(), out.scales.data());
  EXPECT_TRUE(status.ok()) << status;
  return out;
}

std::vector<float> Decode(const MatrixFormat& format, const Encoded& encoded, uint64_t rows,
                          uint64_t columns) {
  std::vector<float> out(rows * columns);
  const StoredMatrix matrix{"w", "", format, rows, columns, encoded.values, encoded.scales};
  const absl::Status status = DecodeRows(matrix, 0, rows, out.data());
  EXPECT_TRUE(status.ok()) << status;
  return out;
}

std::vector<float> Random(size_t count, uint64_t seed, float spread = 0.05f) {
  std::mt19937_64 random(seed);
  std::normal_distribution<float> normal(0.0f, spread);
  std::vector<float> values(count);
  for (float& v : values) v = normal(random);
  return values;
}

float ScaleOf(const MatrixFormat& format, const std::vector<float>& row) {
  const Encoded encoded = Encode(format, row, 1);
  if (format.scales == ScaleFormat::kE8m0)
    return DecodeE8m0(static_cast<uint8_t>(encoded.scales[0]));
  if (format.scales == ScaleFormat::kF16) {
    uint16_t half = 0;
    std::memcpy(&half, encoded.scales.data(), 2);
    return DecodeF16(half);
  }
  float scale = 0;
  std::memcpy(&scale, encoded.scales.data(), 4);
  return scale;
}

TEST(EncodeRows, ScalesAreThoseOfTheFormula) {
  for (const MatrixFormat& format : {kFp8Large, kFp8Small, kFp8Row}) {
    EXPECT_EQ(ScaleOf(format, {448.0f, 1.0f}), 1.0f);
    EXPECT_EQ(ScaleOf(format, {-448.5f, 1.0f}), 2.0f);
    EXPECT_EQ(ScaleOf(format, {224.0f}), 0.5f);
    EXPECT_EQ(ScaleOf(format, {0.0f}), 0x1p-22f);  // 1e-4 / 448 = 2.23e-7, up to 2.38e-7
  }
  EXPECT_EQ(ScaleOf(kFp4, {6.0f}), 1.0f);
  EXPECT_EQ(ScaleOf(kFp4, {6.0001f}), 2.0f);
  EXPECT_EQ(ScaleOf(kFp4, {-0.75f}), 0.125f);
  EXPECT_EQ(ScaleOf(kFp4, {0.0f}), 0x1p-126f);
  EXPECT_EQ(ScaleOf(kInt8, {127.0f, -3.0f}), 1.0f);
  EXPECT_EQ(ScaleOf(kInt8, {1.0f}), DecodeF16(0x2008));  // 1/127 = 0.0078740, rounded 0.0078735
  EXPECT_EQ(ScaleOf(kInt8, {1e-9f}), 0x1p-24f);
  EXPECT_EQ(ScaleOf(kInt8, {0.0f}), 0.0f);
  EXPECT_EQ(ScaleOf(kInt4, {-7.0f}), 1.0f);
}

// 1/127 is 0.00787354 in F16: 0.99606 by that is 126.507, by the unrounded scale 126.4996.
TEST(EncodeRows, DividesByTheRoundedScale) {
  const Encoded encoded = Encode(kInt8, {1.0f, 0.99606f}, 1);
  EXPECT_EQ(static_cast<int8_t>(encoded.values[0]), 127);
  EXPECT_EQ(static_cast<int8_t>(encoded.values[1]), 127);
}

TEST(EncodeRows, CodesOfFp4AndInt4LieLowNibbleFirst) {
  const Encoded fp4 = Encode(kFp4, {6.0f, -0.5f, 5.0f}, 1);
  EXPECT_EQ(fp4.values, (std::vector<std::byte>{std::byte{0x97}, std::byte{0x06}}));
  const Encoded int4 = Encode(kInt4, {7.0f, -7.0f, 0.5f}, 1);
  EXPECT_EQ(int4.values, (std::vector<std::byte>{std::byte{0x1F}, std::byte{0x08}}));
}

// Sizes that no block divides: the error of every element stays within half a step of its block.
TEST(EncodeRows, OddShapesAreWithinHalfAStep) {
  for (const MatrixFormat& format : kAll) {
    for (const auto& [rows, columns] :
         std::vector<std::pair<uint64_t, uint64_t>>{{1, 1}, {3, 33}, {130, 257}, {65, 31}}) {
      SCOPED_TRACE(testing::Message() << FormatName(format) << " " << rows << "x" << columns);
      const std::vector<float> in = Random(rows * columns, rows);
      const std::vector<float> out = Decode(format, Encode(format, in, rows), rows, columns);
      float amax = 0;
      for (const float v : in) amax = std::max(amax, std::fabs(v));
      // Largest step near the largest value: e4m3 32·s with s ≤ amax/224, e2m1 2·s with s ≤ amax/3.
      float half_step = amax / 7;
      if (format.values == ValueFormat::kE2m1) half_step = amax / 3;
      if (format.values == ValueFormat::kInt4) half_step = amax / 7 * 0.501f;
      if (format.values == ValueFormat::kInt8) half_step = amax / 127 * 0.51f;
      if (format.values == ValueFormat::kE4m3) half_step = amax / 14;
      for (size_t i = 0; i < in.size(); ++i) EXPECT_LE(std::fabs(in[i] - out[i]), half_step) << i;
    }
  }
}

// The values stay; the bytes may not for powers of two: a largest value that was rounded down to
// 224 · s, or to 3 · s, is stored with s / 2.
TEST(EncodeRows, ASecondPassGivesTheSameValuesAndIntegersTheSameBytes) {
  for (const MatrixFormat& format : kAll) {
    for (const uint64_t seed : {1, 2, 3}) {
      constexpr uint64_t kRows = 70;
      constexpr uint64_t kColumns = 161;
      const Encoded first = Encode(format, Random(kRows * kColumns, seed), kRows);
      const std::vector<float> once = Decode(format, first, kRows, kColumns);
      const Encoded second = Encode(format, once, kRows);
      EXPECT_TRUE(Decode(format, second, kRows, kColumns) == once) << FormatName(format);
      const bool is_integer = format.scales == ScaleFormat::kF16;
      EXPECT_TRUE(!is_integer || second == first) << FormatName(format);
    }
  }
}

// Codes that another program chose with more room than ours takes.
TEST(EncodeRows, Fp4AndFp8KeepValuesWhoseScaleWasLarger) {
  std::string codes(16, '\x13');  // 1.5, 0.5: the largest code is 3 of 7
  const std::string scale = "\x80";
  const StoredMatrix matrix{"w",
                            "",
                            kFp4,
                            1,
                            32,
                            std::as_bytes(std::span(codes)),
                            std::as_bytes(std::span(scale.data(), 1))};
  std::vector<float> values(32);
  ASSERT_TRUE(DecodeRows(matrix, 0, 1, values.data()).ok());
  EXPECT_EQ(Decode(kFp4, Encode(kFp4, values, 1), 1, 32), values);
  std::string bytes;
  for (int code = 0; code <= 0x60; ++code) bytes += static_cast<char>(code);  // up to 32
  const StoredMatrix fp8{"w",
                         "",
                         kFp8Small,
                         1,
                         97,
                         std::as_bytes(std::span(bytes)),
                         std::as_bytes(std::span("\x7F\x7F\x7F\x7F", 4))};
  values.resize(97);
  ASSERT_TRUE(DecodeRows(fp8, 0, 1, values.data()).ok());
  EXPECT_EQ(Decode(kFp8Small, Encode(kFp8Small, values, 1), 1, 97), values);
}

TEST(EncodeRows, RefusesWhatHasNoCode) {
  for (const MatrixFormat& format : kAll) {
    for (const float bad : {NAN, INFINITY, -INFINITY}) {
      std::vector<std::byte> values(8), scales(8);
      const float row[] = {1.0f, bad};
      const absl::Status status = EncodeRows(format, row, 1, 2, values.data(), scales.data());
      EXPECT_EQ(base::ReasonOf(status), base::Reason::kInvalidArgument) << FormatName(format);
    }
  }
  std::vector<std::byte> values(8), scales(8);
  const float large[] = {1e30f};
  EXPECT_FALSE(EncodeRows(kInt8, large, 1, 1, values.data(), scales.data()).ok());
  EXPECT_FALSE(EncodeRows(kPlainF16, large, 1, 1, values.data(), scales.data()).ok());
  const float largest[] = {3.4028235e38f};
  EXPECT_FALSE(EncodeRows(kPlainBf16, largest, 1, 1, values.data(), scales.data()).ok());
  // As powers of two times a code these would be rounded up to 2^128.
  EXPECT_FALSE(EncodeRows(kFp4, largest, 1, 1, values.data(), scales.data()).ok());
  EXPECT_FALSE(EncodeRows(kFp8Small, largest, 1, 1, values.data(), scales.data()).ok());
  EXPECT_EQ(Decode(kFp4, Encode(kFp4, {0x1p127f}, 1), 1, 1), std::vector<float>{0x1p127f});
  EXPECT_TRUE(EncodeRows(kPlainF32, largest, 1, 1, values.data(), scales.data()).ok());
}

}  // namespace
}  // namespace expertmesh::model

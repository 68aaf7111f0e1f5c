// Stored matrices decoded against values worked out by hand.
#include "model/formats/stored_matrix.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <string>
#include <vector>

#include "services/base/status.h"

namespace expertmesh::model {
namespace {

std::span<const std::byte> Bytes(const std::string& text) { return std::as_bytes(std::span(text)); }

template <class T>
std::string Packed(const std::vector<T>& values) {
  std::string bytes(values.size() * sizeof(T), '\0');
  std::memcpy(bytes.data(), values.data(), bytes.size());
  return bytes;
}

std::vector<float> Decoded(const StoredMatrix& matrix) {
  std::vector<float> out(matrix.rows * matrix.columns, -999.0f);
  const absl::Status status = DecodeRows(matrix, 0, matrix.rows, out.data());
  EXPECT_TRUE(status.ok()) << status;
  return out;
}

TEST(StoredMatrix, PlainFormsWiden) {
  const std::string f32 = Packed<float>({1.5f, -2.25f, 3e-30f, 0.1f});
  EXPECT_EQ(Decoded({"w", "", kPlainF32, 2, 2, Bytes(f32), {}}),
            (std::vector<float>{1.5f, -2.25f, 3e-30f, 0.1f}));
  const std::string f16 = Packed<uint16_t>({0x3C00, 0xC000, 0x0001, 0x7BFF});
  EXPECT_EQ(Decoded({"w", "", kPlainF16, 2, 2, Bytes(f16), {}}),
            (std::vector<float>{1.0f, -2.0f, 0x1p-24f, 65504.0f}));
  const std::string bf16 = Packed<uint16_t>({0x3F80, 0xC000, 0x4049, 0x0001});
  EXPECT_EQ(Decoded({"w", "", kPlainBf16, 1, 4, Bytes(bf16), {}}),
            (std::vector<float>{1.0f, -2.0f, 3.140625f, 0x1p-133f}));
}

// 3 × 5 in blocks of 2 × 2: the right and the lower blocks are partial.
TEST(StoredMatrix, Fp8BlocksWithPartialEdges) {
  const std::string ones(15, '\x38');  // 1.0
  const MatrixFormat format{ValueFormat::kE4m3, ScaleFormat::kF32, 2, 2};
  const std::string scales = Packed<float>({1, 2, 3, 10, 20, 30.5f});
  EXPECT_EQ(Decoded({"w", "", format, 3, 5, Bytes(ones), Bytes(scales)}),
            (std::vector<float>{1, 1, 2, 2, 3, 1, 1, 2, 2, 3, 10, 10, 20, 20, 30.5f}));
}

TEST(StoredMatrix, Fp8TimesAScaleThatIsNoPowerOfTwoIsOneRoundedProduct) {
  const std::string codes = "\x3F\x7E";  // 1.875, 448
  const std::string scales = Packed<float>({0.1f});
  const MatrixFormat format{ValueFormat::kE4m3, ScaleFormat::kF32, 128, 128};
  EXPECT_EQ(Decoded({"w", "", format, 1, 2, Bytes(codes), Bytes(scales)}),
            (std::vector<float>{1.875f * 0.1f, 448.0f * 0.1f}));
}

// Low nibble first; scales 2^-1 and 2^3 over groups of 32.
TEST(StoredMatrix, Fp4GroupsOfARow) {
  std::string codes(17, '\0');
  codes[0] = '\x72';   // columns 0, 1: code 2 = 1.0, code 7 = 6.0
  codes[15] = '\xF0';  // columns 30, 31: 0, −6.0
  codes[16] = '\x09';  // columns 32, 33: −0.5, 0
  const std::string scales = "\x7E\x82";
  const MatrixFormat format{ValueFormat::kE2m1, ScaleFormat::kE8m0, 1, 32};
  const std::vector<float> out = Decoded({"w", "", format, 1, 34, Bytes(codes), Bytes(scales)});
  EXPECT_EQ(out[0], 0.5f);
  EXPECT_EQ(out[1], 3.0f);
  EXPECT_EQ(out[2], 0.0f);
  EXPECT_EQ(out[30], 0.0f);
  EXPECT_EQ(out[31], -3.0f);
  EXPECT_EQ(out[32], -4.0f);
  EXPECT_EQ(out[33], 0.0f);
}

TEST(StoredMatrix, IntegersInGroups) {
  std::string int8(33, '\0');
  int8[0] = '\x7F';
  int8[1] = '\x80';                                               // −128
  int8[32] = '\xFF';                                              // −1
  const std::string scales = Packed<uint16_t>({0x3800, 0x4000});  // 0.5, 2
  const MatrixFormat format8{ValueFormat::kInt8, ScaleFormat::kF16, 1, 32};
  const std::vector<float> eight = Decoded({"w", "", format8, 1, 33, Bytes(int8), Bytes(scales)});
  EXPECT_EQ(eight[0], 63.5f);
  EXPECT_EQ(eight[1], -64.0f);
  EXPECT_EQ(eight[2], 0.0f);
  EXPECT_EQ(eight[32], -2.0f);
  // Two rows of three columns: the last high nibble of a row means nothing.
  const std::string int4 = "\xF0\xA8\x98\xB7";
  const std::string scales4 = Packed<uint16_t>({0x3800, 0x4000});
  const MatrixFormat format4{ValueFormat::kInt4, ScaleFormat::kF16, 1, 32};
  EXPECT_EQ(Decoded({"w", "", format4, 2, 3, Bytes(int4), Bytes(scales4)}),
            (std::vector<float>{-4.0f, 3.5f, 0.0f, 0.0f, 2.0f, -2.0f}));
}

// Rows of a table of the memory: one E8M0 scale for 32 columns of a row.
TEST(StoredMatrix, Fp8RowsOfATable) {
  const std::string codes(2 * 33, '\x40');  // 2.0
  const std::string scales = "\x7F\x80\x78\x7F";
  const MatrixFormat format{ValueFormat::kE4m3, ScaleFormat::kE8m0, 1, kTableBlock};
  const std::vector<float> out = Decoded({"w", "", format, 2, 33, Bytes(codes), Bytes(scales)});
  EXPECT_EQ(out[0], 2.0f);
  EXPECT_EQ(out[32], 4.0f);
  EXPECT_EQ(out[33], 0x1p-6f);
  EXPECT_EQ(out[65], 2.0f);
}

TEST(StoredMatrix, OneRowOfManyReadsItsOwnScales) {
  const std::string ones(4 * 3, '\x38');
  const std::string scales = Packed<float>({1, 2});
  const MatrixFormat format{ValueFormat::kE4m3, ScaleFormat::kF32, 2, 4};
  const StoredMatrix matrix{"w", "", format, 4, 3, Bytes(ones), Bytes(scales)};
  std::vector<float> row(3);
  ASSERT_TRUE(DecodeRows(matrix, 2, 1, row.data()).ok());
  EXPECT_EQ(row, (std::vector<float>{2, 2, 2}));
}

void ExpectRefused(const StoredMatrix& matrix, const std::string& text) {
  std::vector<float> out(matrix.rows * matrix.columns);
  const absl::Status status = DecodeRows(matrix, 0, matrix.rows, out.data());
  EXPECT_EQ(base::ReasonOf(status), base::Reason::kBadCheckpoint) << text;
  EXPECT_NE(status.message().find(text), std::string::npos) << status;
  EXPECT_NE(status.message().find("model.layers.3.w"), std::string::npos) << status;
  EXPECT_EQ(status.message().find("a.safetensors: "), 0u) << status;
}

TEST(StoredMatrix, RefusesWhatIsNoNumberNamingTheElement) {
  const std::string name = "model.layers.3.w";
  const std::string file = "a.safetensors";
  const MatrixFormat fp8{ValueFormat::kE4m3, ScaleFormat::kF32, 128, 128};
  const MatrixFormat power{ValueFormat::kE4m3, ScaleFormat::kE8m0, 32, 32};
  const MatrixFormat int8{ValueFormat::kInt8, ScaleFormat::kF16, 1, 32};
  const std::string good(6, '\x38');
  std::string bad = good;
  bad[4] = '\x7F';
  const std::string one = Packed<float>({1});
  ExpectRefused({name, file, fp8, 2, 3, Bytes(bad), Bytes(one)}, "[1, 1] is the NaN code");
  bad[4] = '\xFF';
  ExpectRefused({name, file, fp8, 2, 3, Bytes(bad), Bytes(one)}, "[1, 1] is the NaN code");
  const std::string nan = Packed<float>({NAN});
  ExpectRefused({name, file, fp8, 2, 3, Bytes(good), Bytes(nan)}, "scale that is not a number");
  const std::string inf = Packed<float>({INFINITY});
  const std::string zeros(6, '\0');
  ExpectRefused({name, file, fp8, 2, 3, Bytes(zeros), Bytes(inf)}, "scale that is infinite");
  ExpectRefused({name, file, power, 2, 3, Bytes(zeros), Bytes("\xFF")}, "[0, 0] has a scale");
  std::string large = good;
  large[5] = '\x7E';
  ExpectRefused({name, file, power, 2, 3, Bytes(large), Bytes("\xFE")}, "[1, 2] overflows");
  const std::string half_nan = Packed<uint16_t>({0x7E00, 0x3C00});
  ExpectRefused({name, file, int8, 2, 3, Bytes(good), Bytes(half_nan)}, "[0, 0] has a scale");
}

TEST(StoredMatrix, NamesOfFormats) {
  EXPECT_EQ(FormatName(kPlainBf16), "BF16");
  EXPECT_EQ(FormatName({ValueFormat::kE4m3, ScaleFormat::kF32, 128, 128}), "fp8 128x128");
  EXPECT_EQ(FormatName({ValueFormat::kInt4, ScaleFormat::kF16, 1, 32}), "int4 1x32");
}

}  // namespace
}  // namespace expertmesh::model

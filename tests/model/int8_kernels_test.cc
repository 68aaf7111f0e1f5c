// The int8 Linear of every instruction set against the formula of int8_layout.h, in bits, over
// random and awkward shapes; packing of every stored form.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <random>

#include "model/formats/encode.h"
#include "model/formats/scalar.h"
#include "model/kernels/aligned.h"
#include "model/kernels/kernel_table.h"
#include "model/kernels/linear.h"
#include "model/kernels/pack_int8.h"
#include "model/kernels/reference/reference_kernels.h"
#include "services/base/status.h"

namespace expertmesh::model {
namespace {

constexpr MatrixFormat kGroup32 = {ValueFormat::kInt8, ScaleFormat::kF16, 1, 32};

std::vector<float> Random(size_t count, uint64_t seed) {
  std::mt19937_64 random(seed);
  std::normal_distribution<float> normal;
  std::vector<float> values(count);
  for (float& v : values) v = normal(random);
  return values;
}

std::vector<uint32_t> Bits(std::span<const float> values) {
  std::vector<uint32_t> bits(values.size());
  if (!bits.empty()) std::memcpy(bits.data(), values.data(), values.size_bytes());
  return bits;
}

// A stored matrix that owns its bytes.
struct Stored {
  std::vector<std::byte> values;
  std::vector<std::byte> scales;
  StoredMatrix view;
};

Stored Encoded(const std::vector<float>& w, size_t rows, const MatrixFormat& format) {
  const size_t columns = w.size() / rows;
  Stored s;
  s.values.resize(rows * format.RowBytes(columns));
  s.scales.resize(format.ScaleRows(rows) * format.ScaleRowBytes(columns));
  EXPECT_TRUE(EncodeRows(format, w.data(), rows, columns, s.values.data(), s.scales.data()).ok());
  s.view = {"w", "test", format, rows, columns, s.values, s.scales};
  return s;
}

// Random int8 weights, packed.
PackedMatrix PackedRandom(WeightArena& arena, size_t outputs, size_t inputs, uint64_t seed) {
  const Stored w = Encoded(Random(outputs * inputs, seed), outputs, kGroup32);
  PackedMatrix packed = arena.NewMatrix(outputs, inputs, Dtype::kInt8);
  EXPECT_TRUE(PackRows(w.view, 0, outputs, packed, 0).ok());
  return packed;
}

// What the formula makes of int8 codes and scales.
std::vector<float> Expected(const Stored& w, std::span<const float> x) {
  return reference::LinearInt8(
      {reinterpret_cast<const int8_t*>(w.values.data()), w.values.size()},
      {reinterpret_cast<const uint16_t*>(w.scales.data()), w.scales.size() / 2}, x);
}

class Int8KernelTest : public testing::TestWithParam<const KernelTable*> {
 protected:
  const KernelTable& kernels() const { return *GetParam(); }
};

INSTANTIATE_TEST_SUITE_P(AllIsas, Int8KernelTest, testing::ValuesIn(AvailableKernels()),
                         [](const auto& info) { return std::string(info.param->isa); });

struct Shape {
  size_t rows, inputs, outputs;
};

TEST_P(Int8KernelTest, LinearEqualsTheFormula) {
  std::vector<Shape> shapes = {{1, 1, 1},      {1, 32, 16},  {1, 24, 40},  {2, 33, 31},
                               {5, 96, 100},   {7, 128, 17}, {12, 64, 32}, {13, 40, 15},
                               {25, 160, 129}, {65, 31, 33}};
  for (size_t rows = 1; rows <= 30; ++rows) shapes.push_back({rows, 70, 20});
  for (const Shape& s : shapes) {
    SCOPED_TRACE(testing::Message() << s.rows << " x " << s.inputs << " x " << s.outputs);
    const Stored w = Encoded(Random(s.outputs * s.inputs, s.rows), s.outputs, kGroup32);
    const std::vector<float> x = Random(s.rows * s.inputs, 2);
    WeightArena arena;
    PackedMatrix packed = arena.NewMatrix(s.outputs, s.inputs, Dtype::kInt8);
    ASSERT_TRUE(PackRows(w.view, 0, s.outputs, packed, 0).ok());
    constexpr float kUntouched = 12345.0f;
    const size_t stride = s.outputs + 3;
    std::vector<float> y(s.rows * stride, kUntouched);
    LinearRows(kernels(), packed, x.data(), s.inputs, s.rows, y.data(), stride);
    for (size_t r = 0; r < s.rows; ++r) {
      EXPECT_EQ(Bits(std::span(y).subspan(r * stride, s.outputs)),
                Bits(Expected(w, std::span(x).subspan(r * s.inputs, s.inputs))))
          << "row " << r;
      EXPECT_EQ(y[r * stride + s.outputs], kUntouched) << "wrote past the row";
    }
  }
}

constexpr MatrixFormat kInt4Form = {ValueFormat::kInt4, ScaleFormat::kF16, 1, 32};
constexpr MatrixFormat kFp4Form = {ValueFormat::kE2m1, ScaleFormat::kE8m0, 1, 32};

// The numbers of a four-bit matrix as whole ones with F16 scales.
std::vector<float> ExpectedOfFourBit(const Stored& w, std::span<const float> x) {
  const StoredMatrix& v = w.view;
  const bool fp4 = v.format.values == ValueFormat::kE2m1;
  std::vector<int8_t> codes;
  for (uint64_t row = 0; row < v.rows; ++row) {
    for (uint64_t c = 0; c < v.columns; ++c) {
      const int pair = std::to_integer<int>(v.values[row * v.format.RowBytes(v.columns) + c / 2]);
      const int nibble = c % 2 == 0 ? pair & 15 : pair >> 4;
      const float doubled = 2.0f * DecodeE2m1(static_cast<uint8_t>(nibble));
      codes.push_back(static_cast<int8_t>(fp4 ? static_cast<int>(doubled) : nibble - 8));
    }
  }
  std::vector<uint16_t> scales(v.scales.size() / (fp4 ? 1 : 2));
  for (size_t i = 0; i < scales.size(); ++i) {
    if (fp4) {
      scales[i] = EncodeF16(DecodeE8m0(std::to_integer<uint8_t>(v.scales[i])) * 0.5f);
    } else {
      std::memcpy(&scales[i], v.scales.data() + i * 2, 2);
    }
  }
  return reference::LinearInt8(codes, scales, x);
}

TEST_P(Int8KernelTest, FourBitLinearEqualsTheFormula) {
  for (const MatrixFormat& format : {kInt4Form, kFp4Form}) {
    std::vector<Shape> shapes = {{1, 1, 1},    {1, 32, 16},  {1, 24, 40},  {2, 33, 31},
                                 {5, 96, 100}, {7, 128, 17}, {13, 40, 15}, {25, 160, 129}};
    for (size_t rows = 1; rows <= 14; ++rows) shapes.push_back({rows, 70, 20});
    for (const Shape& s : shapes) {
      SCOPED_TRACE(testing::Message() << FormatName(format) << ": " << s.rows << " x " << s.inputs
                                      << " x " << s.outputs);
      const Stored w = Encoded(Random(s.outputs * s.inputs, s.rows), s.outputs, format);
      const std::vector<float> x = Random(s.rows * s.inputs, 2);
      WeightArena arena;
      PackedMatrix packed = arena.NewMatrix(s.outputs, s.inputs, Int8WeightDtype(format));
      ASSERT_TRUE(IsFourBit(packed.dtype));
      ASSERT_TRUE(PackRows(w.view, 0, s.outputs, packed, 0).ok());
      std::vector<float> y(s.rows * s.outputs);
      LinearRows(kernels(), packed, x.data(), s.inputs, s.rows, y.data(), s.outputs);
      for (size_t r = 0; r < s.rows; ++r) {
        ASSERT_EQ(Bits(std::span(y).subspan(r * s.outputs, s.outputs)),
                  Bits(ExpectedOfFourBit(w, std::span(x).subspan(r * s.inputs, s.inputs))))
            << "row " << r;
      }
    }
  }
}

// Every code, and scales that F16 does not have.
TEST_P(Int8KernelTest, FourBitCodesAndScalesAreExact) {
  constexpr size_t kInputs = 32;
  for (const MatrixFormat& format : {kInt4Form, kFp4Form}) {
    const bool fp4 = format.values == ValueFormat::kE2m1;
    const std::vector<int> exponents =
        fp4 ? std::vector<int>{0, 1, 60, 127, 200, 227} : std::vector{0};
    for (const int exponent : exponents) {  // of E8M0
      Stored w = Encoded(std::vector<float>(16 * kInputs, 1.0f), 16, format);
      for (size_t o = 0; o < 16; ++o) {
        for (size_t i = 0; i < kInputs / 2; ++i) {
          w.values[o * kInputs / 2 + i] = static_cast<std::byte>(o * 17);
        }
        if (fp4) w.scales[o] = static_cast<std::byte>(exponent);
      }
      std::vector<float> decoded(16 * kInputs);
      ASSERT_TRUE(DecodeRows(w.view, 0, 16, decoded.data()).ok());
      WeightArena arena;
      PackedMatrix packed = arena.NewMatrix(16, kInputs, Int8WeightDtype(format));
      ASSERT_TRUE(PackRows(w.view, 0, 16, packed, 0).ok());
      std::vector<float> x(kInputs, 0.0f);
      x[5] = 127.0f;  // its scale is 1
      std::vector<float> y(16);
      LinearRows(kernels(), packed, x.data(), kInputs, 1, y.data(), 16);
      for (size_t o = 0; o < 16; ++o) EXPECT_EQ(y[o], 127.0f * decoded[o * kInputs + 5]) << o;
    }
  }
}

// The largest products: codes of ±127 and −128, which no quantiser writes but a file may hold.
TEST_P(Int8KernelTest, ExtremeCodesDoNotSaturate) {
  constexpr size_t kInputs = 96;
  for (const int code : {-128, -127, 127}) {
    Stored w = Encoded(std::vector<float>(17 * kInputs, 1.0f), 17, kGroup32);
    for (std::byte& b : w.values) b = static_cast<std::byte>(code);
    for (const float value : {-3.0f, 3.0f}) {
      const std::vector<float> x(kInputs, value);
      WeightArena arena;
      PackedMatrix packed = arena.NewMatrix(17, kInputs, Dtype::kInt8);
      ASSERT_TRUE(PackRows(w.view, 0, 17, packed, 0).ok());
      std::vector<float> y(17);
      LinearRows(kernels(), packed, x.data(), kInputs, 1, y.data(), 17);
      EXPECT_EQ(Bits(y), Bits(Expected(w, x))) << code << " " << value;
    }
  }
}

TEST_P(Int8KernelTest, ThreadsAndRowsDoNotChangeARow) {
  constexpr size_t kInputs = 200, kOutputs = 700, kRows = 37;
  WeightArena arena;
  const PackedMatrix packed = PackedRandom(arena, kOutputs, kInputs, 3);
  const std::vector<float> x = Random(kRows * kInputs, 4);
  std::vector<float> alone(kRows * kOutputs);
  for (size_t r = 0; r < kRows; ++r) {
    LinearRows(kernels(), packed, x.data() + r * kInputs, kInputs, 1, alone.data() + r * kOutputs,
               kOutputs);
  }
  const Profile profile = *ParseProfile("int8");
  for (const int threads : {1, 3}) {
    base::ThreadPool pool(threads);
    std::vector<float> y(kRows * kOutputs);
    Linear({kernels(), profile, pool}, packed, x.data(), kInputs, kRows, y.data(), kOutputs);
    EXPECT_EQ(Bits(y), Bits(alone)) << threads;
  }
}

// What the calling thread does first may be a Linear too, of fewer rows or of more.
TEST_P(Int8KernelTest, ALinearMayRunBesideAnother) {
  constexpr size_t kInputs = 200, kOutputs = 700, kRows = 6;
  WeightArena arena;
  const PackedMatrix packed = PackedRandom(arena, kOutputs, kInputs, 5);
  const std::vector<float> x = Random(kRows * kInputs, 6);
  const Profile profile = *ParseProfile("int8");
  base::ThreadPool pool(2);
  const Exec exec{kernels(), profile, pool};
  std::vector<float> alone(kRows * kOutputs);
  Linear(exec, packed, x.data(), kInputs, kRows, alone.data(), kOutputs);
  for (const size_t rows : {size_t{0}, size_t{2}, kRows}) {
    std::vector<float> y(rows * kOutputs);
    std::vector<float> beside(kRows * kOutputs);
    int firsts = 0;
    Linear(exec, packed, x.data(), kInputs, rows, y.data(), kOutputs, [&] {
      ++firsts;
      Linear(exec, packed, x.data(), kInputs, 2, beside.data(), kOutputs);
      Linear(exec, packed, x.data(), kInputs, kRows, beside.data(), kOutputs);
    });
    EXPECT_EQ(firsts, 1);
    EXPECT_EQ(Bits(beside), Bits(alone)) << rows;
    EXPECT_EQ(Bits(y), Bits(std::span(alone).first(y.size()))) << rows;
  }
}

TEST_P(Int8KernelTest, RowsAreQuantisedToNearestEven) {
  constexpr float kAmax = 127.0f * 0.25f;  // codes are x / 0.25
  const std::vector<float> x = {kAmax, -kAmax, 0.125f, 0.375f, -0.125f, -0.375f, 0.0f, 0.26f};
  AlignedBytes record;
  std::byte* bytes = record.Resize(Int8RowBytes(x.size()));
  kernels().quantise_row(x.data(), x.size(), bytes);
  const auto* codes = reinterpret_cast<const int8_t*>(bytes);
  const int expected[] = {127, -127, 0, 2, 0, -2, 0, 1};
  int sum = 0;
  for (size_t i = 0; i < x.size(); ++i) EXPECT_EQ(codes[i], expected[i]) << i;
  for (size_t i = 0; i < kInt8Group; ++i) sum += codes[i];
  for (size_t i = x.size(); i < kInt8Group; ++i) EXPECT_EQ(codes[i], 0) << "behind the last input";
  int32_t start;
  std::memcpy(&start, bytes + Int8StartsAt(x.size()), sizeof(start));
  EXPECT_EQ(start, -128 * sum);
  float scale;
  std::memcpy(&scale, bytes + Int8ScaleAt(x.size()), sizeof(scale));
  EXPECT_EQ(scale, 0.25f);
}

TEST_P(Int8KernelTest, RowsWithoutAScale) {
  constexpr size_t kInputs = 50, kOutputs = 20;
  const Stored w = Encoded(Random(kOutputs * kInputs, 5), kOutputs, kGroup32);
  WeightArena arena;
  PackedMatrix packed = arena.NewMatrix(kOutputs, kInputs, Dtype::kInt8);
  ASSERT_TRUE(PackRows(w.view, 0, kOutputs, packed, 0).ok());
  std::vector<float> y(kOutputs);
  for (const float tiny : {0.0f, -0.0f, 1e-40f, 0x1p-101f}) {
    const std::vector<float> x(kInputs, tiny);
    LinearRows(kernels(), packed, x.data(), kInputs, 1, y.data(), kOutputs);
    for (const float v : y) EXPECT_EQ(v, 0.0f) << tiny;
  }
  for (const float bad : {std::nanf(""), INFINITY, -INFINITY}) {
    std::vector<float> x(kInputs, 1.0f);
    x[49] = bad;
    LinearRows(kernels(), packed, x.data(), kInputs, 1, y.data(), kOutputs);
    for (const float v : y) EXPECT_TRUE(std::isnan(v)) << bad;
  }
}

// Rows of the reference: the product is close to that of the decoded values.
TEST(Int8Reference, IsCloseToF32) {
  constexpr size_t kInputs = 512, kOutputs = 16;
  const std::vector<float> values = Random(kOutputs * kInputs, 6);
  const std::vector<float> x = Random(kInputs, 7);
  const std::vector<float> exact = reference::Linear(values, x);
  const std::vector<float> got = Expected(Encoded(values, kOutputs, kGroup32), x);
  for (size_t o = 0; o < kOutputs; ++o) EXPECT_NEAR(got[o], exact[o], 0.6) << "σ of a sum: 22";
}

std::vector<float> Product(const StoredMatrix& w, std::span<const float> x) {
  WeightArena arena;
  PackedMatrix packed = arena.NewMatrix(w.rows, w.columns, Dtype::kInt8);
  EXPECT_TRUE(PackRows(w, 0, w.rows, packed, 0).ok());
  std::vector<float> y(w.rows);
  LinearRows(*AvailableKernels().front(), packed, x.data(), w.columns, 1, y.data(), w.rows);
  return y;
}

TEST(Int8Packing, Int8AndInt4KeepTheirCodes) {
  constexpr size_t kInputs = 200, kOutputs = 18;
  const std::vector<float> values = Random(kOutputs * kInputs, 8);
  const std::vector<float> x = Random(kInputs, 9);
  const Stored int8 = Encoded(values, kOutputs, kGroup32);
  EXPECT_EQ(Bits(Product(int8.view, x)), Bits(Expected(int8, x)));
  for (const auto& [form, group] :
       {std::pair{ValueFormat::kInt8, 128u}, std::pair{ValueFormat::kInt4, 32u},
        std::pair{ValueFormat::kInt4, 128u}}) {
    const MatrixFormat format = {form, ScaleFormat::kF16, 1, group};
    const Stored w = Encoded(values, kOutputs, format);
    Int8Row row;
    for (size_t r = 0; r < kOutputs; ++r) {
      std::vector<float> decoded(kInputs);
      ASSERT_TRUE(DecodeRows(w.view, r, 1, decoded.data()).ok());
      ASSERT_TRUE(ReadInt8Row(w.view, r, row).ok());
      for (size_t k = 0; k < kInputs; ++k) {
        ASSERT_EQ(static_cast<float>(row.codes[k]) * DecodeF16(row.scales[k / 32]), decoded[k]);
      }
    }
  }
}

TEST(Int8Packing, OtherFormsAreQuantisedFromTheirValues) {
  constexpr size_t kInputs = 70, kOutputs = 18;
  const std::vector<float> values = Random(kOutputs * kInputs, 10);
  const std::vector<float> x = Random(kInputs, 11);
  for (const MatrixFormat& format :
       {kPlainF32, kPlainBf16, MatrixFormat{ValueFormat::kE4m3, ScaleFormat::kF32, 32, 32}}) {
    const Stored w = Encoded(values, kOutputs, format);
    std::vector<float> decoded(values.size());
    ASSERT_TRUE(DecodeRows(w.view, 0, kOutputs, decoded.data()).ok());
    EXPECT_EQ(Bits(Product(w.view, x)), Bits(Expected(Encoded(decoded, kOutputs, kGroup32), x)));
  }
}

TEST(Int8Packing, FourBitsOfTheFileStayFourBits) {
  EXPECT_EQ(Int8WeightDtype(kInt4Form), Dtype::kInt4);
  EXPECT_EQ(Int8WeightDtype({ValueFormat::kInt4, ScaleFormat::kF16, 1, 128}), Dtype::kInt4);
  EXPECT_EQ(Int8WeightDtype({ValueFormat::kInt4, ScaleFormat::kF16, 1, 48}), Dtype::kInt8);
  EXPECT_EQ(Int8WeightDtype(kFp4Form), Dtype::kFp4);
  EXPECT_EQ(Int8WeightDtype(kGroup32), Dtype::kInt8);
  EXPECT_EQ(Int8WeightDtype(kPlainBf16), Dtype::kInt8);
  EXPECT_EQ((PackedMatrix{16, 64, Dtype::kFp4, nullptr}.bytes()), 16 * 64 / 2 + 16 * 2 * 2);
}

TEST(Int8Packing, AFourBitScaleThatIsNoNumberIsABadCheckpoint) {
  for (const MatrixFormat& format : {kInt4Form, kFp4Form}) {
    Stored w = Encoded(std::vector<float>(64, 1.0f), 1, format);
    for (std::byte& byte : w.scales) byte = std::byte{0xFF};
    WeightArena arena;
    PackedMatrix packed = arena.NewMatrix(1, 64, Int8WeightDtype(format));
    EXPECT_EQ(base::ReasonOf(PackRows(w.view, 0, 1, packed, 0)), base::Reason::kBadCheckpoint);
    if (format == kInt4Form) continue;
    for (std::byte& byte : w.scales) byte = std::byte{228};  // 2^101
    const absl::Status large = PackRows(w.view, 0, 1, packed, 0);
    EXPECT_EQ(base::ReasonOf(large), base::Reason::kBadCheckpoint);
    EXPECT_NE(large.message().find("\"w\""), std::string::npos) << large;
  }
}

TEST(Int8Packing, TheTransposeIsQuantisedAlongItsInputs) {
  constexpr size_t kInputs = 24, kOutputs = 37;
  const std::vector<float> values = Random(2 * kInputs * kOutputs, 12);
  std::vector<float> transposed(kInputs * kOutputs);
  for (size_t k = 0; k < kInputs; ++k) {
    for (size_t o = 0; o < kOutputs; ++o) {
      transposed[o * kInputs + k] = values[(kInputs + k) * kOutputs + o];
    }
  }
  const std::vector<float> x = Random(kInputs, 13);
  WeightArena arena;
  PackedMatrix packed = arena.NewMatrix(kOutputs, kInputs, Dtype::kInt8);
  const Stored stored = Encoded(values, 2 * kInputs, kPlainF32);
  ASSERT_TRUE(PackTransposed(stored.view, kInputs, packed).ok());
  std::vector<float> y(kOutputs);
  LinearRows(*AvailableKernels().front(), packed, x.data(), kInputs, 1, y.data(), kOutputs);
  EXPECT_EQ(Bits(y), Bits(Expected(Encoded(transposed, kOutputs, kGroup32), x)));
}

TEST(Int8Packing, WhatInt8CannotHoldIsABadCheckpoint) {
  std::vector<float> values(64, 1.0f);
  values[40] = INFINITY;
  WeightArena arena;
  PackedMatrix packed = arena.NewMatrix(1, 64, Dtype::kInt8);
  const StoredMatrix plain = {"w", "file", kPlainF32, 1, 64, std::as_bytes(std::span(values)), {}};
  EXPECT_EQ(base::ReasonOf(PackRows(plain, 0, 1, packed, 0)), base::Reason::kBadCheckpoint);
  Stored w = Encoded(std::vector<float>(64, 1.0f), 1, kGroup32);
  const uint16_t nan = 0x7E00;
  std::memcpy(w.scales.data() + 2, &nan, sizeof(nan));
  EXPECT_EQ(base::ReasonOf(PackRows(w.view, 0, 1, packed, 0)), base::Reason::kBadCheckpoint);
}

}  // namespace
}  // namespace expertmesh::model

// Every instruction set against the scalar reference, in bits, over random and awkward shapes.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <random>

#include "model/fingerprint.h"
#include "model/kernels/aligned.h"
#include "model/kernels/bf16.h"
#include "model/kernels/cpu/tables.h"
#include "model/kernels/kernel_table.h"
#include "model/kernels/linear.h"
#include "model/kernels/math.h"
#include "model/kernels/pack_fp8.h"
#include "model/kernels/reference/reference_kernels.h"

namespace expertmesh::model {
namespace {

std::vector<float> Random(size_t count, uint64_t seed) {
  std::mt19937_64 random(seed);
  std::normal_distribution<float> normal;
  std::vector<float> values(count);
  for (float& v : values) v = normal(random);
  return values;
}

std::vector<uint32_t> Bits(std::span<const float> values) {
  std::vector<uint32_t> bits(values.size());
  std::memcpy(bits.data(), values.data(), values.size_bytes());
  return bits;
}

// A stored matrix over floats, as the checkpoint would give it.
StoredMatrix ViewOf(const std::vector<float>& values, size_t rows) {
  return {"w", "test", kPlainF32, rows, values.size() / rows, std::as_bytes(std::span(values)), {}};
}

struct Shape {
  size_t rows, inputs, outputs;
};

class KernelTest : public testing::TestWithParam<const KernelTable*> {
 protected:
  const KernelTable& kernels() const { return *GetParam(); }
};

INSTANTIATE_TEST_SUITE_P(AllIsas, KernelTest, testing::ValuesIn(AvailableKernels()),
                         [](const auto& info) { return std::string(info.param->isa); });

TEST_P(KernelTest, LinearEqualsTheScalarChain) {
  const Shape shapes[] = {{1, 1, 1},    {1, 64, 16}, {1, 77, 83},  {2, 5, 31},
                          {3, 40, 100}, {5, 33, 64}, {7, 128, 17}, {8, 96, 48},
                          {9, 20, 129}, {13, 7, 15}, {16, 64, 64}, {65, 31, 33}};
  for (const Dtype dtype : {Dtype::kF32, Dtype::kBf16}) {
    for (const Shape& s : shapes) {
      SCOPED_TRACE(testing::Message() << s.rows << " x " << s.inputs << " x " << s.outputs);
      std::vector<float> w = Random(s.outputs * s.inputs, s.rows);
      const std::vector<float> x = Random(s.rows * s.inputs, 2);
      WeightArena arena;
      PackedMatrix packed = arena.NewMatrix(s.outputs, s.inputs, dtype);
      ASSERT_TRUE(PackRows(ViewOf(w, s.outputs), 0, s.outputs, packed, 0).ok());
      if (dtype == Dtype::kBf16) {
        for (float& v : w) v = RoundBf16(v);
      }
      constexpr float kUntouched = 12345.0f;
      const size_t stride = s.outputs + 3;
      std::vector<float> y(s.rows * stride, kUntouched);
      LinearRows(kernels(), packed, x.data(), s.inputs, s.rows, y.data(), stride);
      for (size_t r = 0; r < s.rows; ++r) {
        const std::vector<float> expected =
            reference::Linear(w, std::span(x).subspan(r * s.inputs, s.inputs));
        EXPECT_EQ(Bits(std::span(y).subspan(r * stride, s.outputs)), Bits(expected)) << "row " << r;
        EXPECT_EQ(y[r * stride + s.outputs], kUntouched) << "wrote past the row";
      }
    }
  }
}

// fp8 values and scales; the scales from 2^-125 to just below 2^8, of both signs, subnormal and
// zero.
struct Fp8Matrix {
  std::vector<std::byte> codes;
  std::vector<float> scales;
  StoredMatrix view;

  Fp8Matrix(size_t rows, size_t columns, size_t block_rows, size_t block_columns, uint64_t seed) {
    std::mt19937_64 random(seed);
    codes.resize(rows * columns);
    for (std::byte& code : codes) {
      code = static_cast<std::byte>(random());
      if ((code & std::byte{0x7F}) == std::byte{0x7F}) code = std::byte{0x80};
    }
    MatrixFormat format{ValueFormat::kE4m3, ScaleFormat::kF32, block_rows, block_columns};
    scales.resize(format.ScaleRows(rows) * format.ScaleColumns(columns));
    for (float& scale : scales) {
      scale = std::ldexp(1.0f + static_cast<float>(random() % 1000) / 1000.0f,
                         7 - static_cast<int>(random() % 133));
      if (random() % 16 == 0) scale = random() % 2 == 0 ? 0.0f : 1e-42f;
      if (random() % 16 == 0) scale = std::nextafter(256.0f, 0.0f);
      if (random() % 8 == 0) scale = -scale;
    }
    view = {"w", "test", format, rows, columns, codes, std::as_bytes(std::span(scales))};
  }
};

TEST_P(KernelTest, Fp8PanelsGiveTheBitsOfWeightsRoundedToBf16) {
  const Shape shapes[] = {{1, 1, 1},     {1, 64, 16},  {1, 77, 83},  {2, 5, 31},
                          {3, 40, 100},  {1, 300, 64}, {7, 128, 17}, {8, 96, 48},
                          {9, 200, 129}, {13, 7, 15},  {16, 64, 64}, {65, 130, 33}};
  const std::pair<size_t, size_t> blocks[] = {{32, 32}, {128, 128}, {16, 64}, {48, 96}};
  for (const auto& [block_rows, block_columns] : blocks) {
    for (const Shape& s : shapes) {
      SCOPED_TRACE(testing::Message() << s.rows << " x " << s.inputs << " x " << s.outputs
                                      << ", blocks " << block_rows << " x " << block_columns);
      const Fp8Matrix w(s.outputs, s.inputs, block_rows, block_columns, s.rows + block_rows);
      ASSERT_TRUE(FitsFp8Panels(w.view));
      const std::vector<float> x = Random(s.rows * s.inputs, 2);
      WeightArena arena;
      PackedMatrix bf16 = arena.NewMatrix(s.outputs, s.inputs, Dtype::kBf16);
      PackedMatrix fp8 = arena.NewMatrix(s.outputs, s.inputs, Dtype::kFp8);
      ASSERT_TRUE(PackRows(w.view, 0, s.outputs, bf16, 0).ok());
      ASSERT_TRUE(PackRows(w.view, 0, s.outputs, fp8, 0).ok());
      constexpr float kUntouched = 12345.0f;
      const size_t stride = s.outputs + 3;
      std::vector<float> expected(s.rows * stride, kUntouched);
      std::vector<float> y(s.rows * stride, kUntouched);
      LinearRows(kernels(), bf16, x.data(), s.inputs, s.rows, expected.data(), stride);
      LinearRows(kernels(), fp8, x.data(), s.inputs, s.rows, y.data(), stride);
      EXPECT_EQ(Bits(y), Bits(expected));
#if defined(__x86_64__)
      if (kernels().isa == "avx512") {  // as a CPU without VBMI has it
        KernelTable plain = kernels();
        plain.linear_fp8 = LinearFp8Avx512;
        std::fill(y.begin(), y.end(), kUntouched);
        LinearRows(plain, fp8, x.data(), s.inputs, s.rows, y.data(), stride);
        EXPECT_EQ(Bits(y), Bits(expected));
      }
#endif
    }
  }
}

TEST(Fp8PanelsTest, PartsOfAMatrixGoWhereTheyBelong) {
  const Fp8Matrix w(96, 40, 16, 32, 1);
  const std::vector<float> x = Random(40, 2);
  std::vector<float> whole(96), part(64);
  WeightArena arena;
  PackedMatrix all = arena.NewMatrix(96, 40, Dtype::kFp8);
  PackedMatrix some = arena.NewMatrix(64, 40, Dtype::kFp8);
  ASSERT_TRUE(PackRows(w.view, 0, 96, all, 0).ok());
  ASSERT_TRUE(PackRows(w.view, 48, 48, some, 16).ok());
  LinearRows(FastestKernels(), all, x.data(), 40, 1, whole.data(), 96);
  LinearRows(FastestKernels(), some, x.data(), 40, 1, part.data(), 64);
  EXPECT_THAT(std::span(part).first(16), testing::Each(0.0f)) << "nothing was packed there";
  EXPECT_EQ(Bits(std::span(part).subspan(16)), Bits(std::span(whole).subspan(48)));
}

TEST(Fp8PanelsTest, TakeWhatTheLayoutCanHold) {
  const Fp8Matrix w(64, 96, 32, 32, 1);
  EXPECT_TRUE(FitsFp8Panels(w.view));
  EXPECT_FALSE(FitsFp8Panels(Fp8Matrix(64, 96, 32, 16, 1).view));
  EXPECT_FALSE(FitsFp8Panels(Fp8Matrix(64, 96, 32, 48, 1).view));
  EXPECT_FALSE(FitsFp8Panels(Fp8Matrix(64, 96, 8, 32, 1).view));
  EXPECT_FALSE(FitsFp8Panels(Fp8Matrix(64, 96, 24, 32, 1).view));
  for (const float bad : {256.0f, -1e30f, std::numeric_limits<float>::infinity(),
                          std::numeric_limits<float>::quiet_NaN()}) {
    Fp8Matrix other(64, 96, 32, 32, 1);
    other.scales.back() = bad;
    EXPECT_FALSE(FitsFp8Panels(other.view)) << bad;
  }
  const std::vector<float> plain = Random(64, 1);
  EXPECT_FALSE(FitsFp8Panels(ViewOf(plain, 4)));
}

TEST(Fp8PanelsTest, ANaNCodeIsABadCheckpoint) {
  Fp8Matrix w(32, 32, 32, 32, 1);
  w.codes[40] = std::byte{0x7F};
  WeightArena arena;
  PackedMatrix packed = arena.NewMatrix(32, 32, Dtype::kFp8);
  const absl::Status status = PackRows(w.view, 0, 32, packed, 0);
  EXPECT_THAT(std::string(status.message()), testing::HasSubstr("element [1, 8]"));
}

TEST_P(KernelTest, NoRowsWriteNothing) {
  WeightArena arena;
  const PackedMatrix packed = arena.NewMatrix(20, 8, Dtype::kF32);
  float y = 7.0f;
  LinearRows(kernels(), packed, nullptr, 8, 0, &y, 20);
  EXPECT_EQ(y, 7.0f);
}

TEST_P(KernelTest, TransposedPackingIsTheTransposedMatrix) {
  constexpr size_t kInputs = 12;
  constexpr size_t kOutputs = 27;
  const std::vector<float> w = Random(3 * kInputs * kOutputs, 1);  // three stacked blocks [12, 27]
  const std::vector<float> x = Random(kInputs, 2);
  WeightArena arena;
  PackedMatrix packed = arena.NewMatrix(kOutputs, kInputs, Dtype::kF32);
  ASSERT_TRUE(PackTransposed(ViewOf(w, 3 * kInputs), kInputs, packed).ok());
  std::vector<float> y(kOutputs);
  LinearRows(kernels(), packed, x.data(), kInputs, 1, y.data(), kOutputs);
  for (size_t o = 0; o < kOutputs; ++o) {
    float expected = 0;
    for (size_t k = 0; k < kInputs; ++k)
      expected = std::fma(w[(kInputs + k) * kOutputs + o], x[k], expected);
    EXPECT_EQ(y[o], expected);
  }
}

TEST_P(KernelTest, NormEqualsTheReference) {
  for (const size_t n : {1, 15, 16, 17, 40, 64, 1000, 1024}) {
    const std::vector<float> x = Random(n, n);
    const std::vector<float> w = Random(n, 3);
    std::vector<float> y(n);
    kernels().rms_norm(x.data(), w.data(), 1e-6f, n, y.data());
    EXPECT_EQ(Bits(y), Bits(reference::RmsNorm(x, w, 1e-6f))) << n;
  }
}

TEST_P(KernelTest, ElementwiseEqualsTheFormulas) {
  constexpr size_t kCount = 133;
  const std::vector<float> a = Random(kCount, 1);
  const std::vector<float> b = Random(kCount, 2);
  std::vector<float> in_place = a;
  std::vector<float> out(kCount);
  kernels().silu_mul(in_place.data(), b.data(), kCount, in_place.data());
  for (size_t i = 0; i < kCount; ++i) EXPECT_EQ(in_place[i], Silu(a[i]) * b[i]);
  kernels().add(a.data(), b.data(), kCount, out.data());
  for (size_t i = 0; i < kCount; ++i) EXPECT_EQ(out[i], a[i] + b[i]);
  kernels().scale(0.7f, a.data(), kCount, out.data());
  for (size_t i = 0; i < kCount; ++i) EXPECT_EQ(out[i], 0.7f * a[i]);
  kernels().round_bf16(a.data(), kCount, out.data());
  for (size_t i = 0; i < kCount; ++i) EXPECT_EQ(out[i], RoundBf16(a[i]));
  std::vector<uint16_t> halves(kCount);
  for (size_t i = 0; i < kCount; ++i) halves[i] = NarrowBf16(a[i]);
  kernels().widen_bf16(halves.data(), kCount, out.data());
  for (size_t i = 0; i < kCount; ++i) EXPECT_EQ(out[i], RoundBf16(a[i]));
}

TEST_P(KernelTest, TransposesATile) {
  for (const size_t width : {1, 6, 34, 40}) {
    for (const size_t count : {1, 3, 22, 64}) {
      const std::vector<float> rows = Random(count * width, width);
      std::vector<float> keys(width * kTileKeys, 99.0f);
      kernels().transpose(rows.data(), width, count, keys.data(), kTileKeys);
      for (size_t d = 0; d < width; ++d) {
        for (size_t s = 0; s < kTileKeys; ++s) {
          EXPECT_EQ(keys[d * kTileKeys + s], s < count ? rows[s * width + d] : 99.0f);
        }
      }
    }
  }
}

// One head over tiles of keys with a plain softmax in float64.
std::vector<double> PlainAttention(std::span<const float> q, std::span<const float> keys,
                                   size_t width, size_t rank, size_t count, float scale) {
  std::vector<double> p(count);
  double maximum = -1e30;
  for (size_t s = 0; s < count; ++s) {
    double dot = 0;
    for (size_t d = 0; d < width; ++d) dot += double{q[d]} * double{keys[s * width + d]};
    p[s] = scale * dot;
    maximum = std::max(maximum, p[s]);
  }
  double sum = 0;
  for (double& v : p) sum += v = std::exp(v - maximum);
  std::vector<double> out(rank, 0.0);
  for (size_t s = 0; s < count; ++s) {
    for (size_t r = 0; r < rank; ++r) out[r] += p[s] / sum * double{keys[s * width + r]};
  }
  return out;
}

// Some heads at entries that lie anywhere, as tiles of 64.
class AttendCase {
 public:
  AttendCase(const KernelTable& kernels, size_t rank, Dtype dtype)
      : kernels_(kernels), rank_(rank), width_(rank + 6), dtype_(dtype) {
    std::vector<float> rows = Random(kCount * width_, 2);
    if (dtype == Dtype::kBf16) {
      for (float& value : rows) value = RoundBf16(value);
    }
    rows_ = rows;
    halves_.resize(rows.size());
    for (size_t i = 0; i < rows.size(); ++i) halves_[i] = NarrowBf16(rows[i]);
    kernels.transpose(queries_by_head().data(), width_, kHeads, queries_.data(), kHeadLanes);
  }

  static constexpr size_t kHeads = 5;
  static constexpr size_t kCount = 150;  // two full tiles and one of 22
  static constexpr float kScale = 0.2f;

  std::vector<float> queries_by_head() const { return Random(kHeads * width_, 1); }
  const std::vector<float>& rows() const { return rows_; }
  size_t width() const { return width_; }

  // context [rank][16] of each of some equal sets, divided; scores in blocks of `entries`, sums in
  // blocks of `ranks`.
  std::vector<std::vector<float>> Attend(size_t entries, size_t ranks, size_t sets = 1) const {
    std::vector<float> queries;
    for (size_t i = 0; i < sets; ++i) {
      queries.insert(queries.end(), queries_.begin(), queries_.end());
    }
    std::vector<float> maxima(sets * kHeadLanes, -std::numeric_limits<float>::infinity());
    std::vector<float> sums(sets * kHeadLanes, 0.0f);
    std::vector<float> factors(sets * kHeadLanes);
    const size_t context_set = rank_ * kHeadLanes + 48;
    std::vector<float> context(sets * context_set, std::nanf(""));  // the first tile sets it
    for (size_t first = 0; first < kCount; first += kTileKeys) {
      const size_t count = std::min(kTileKeys, kCount - first);
      std::vector<const std::byte*> tile;
      for (size_t i = 0; i < count; ++i) tile.push_back(At(first + i));
      std::vector<float> weights(sets * kTileKeys * kHeadLanes);
      for (size_t i = 0; i < count; i += entries) {
        kernels_.attend_scores({tile.data() + i, dtype_, std::min(entries, count - i), width_},
                               sets, queries.data(), kScale, weights.data() + i * kHeadLanes);
      }
      for (size_t set = 0; set < sets; ++set) {
        kernels_.attend_weights(count, weights.data() + set * kTileKeys * kHeadLanes,
                                maxima.data() + set * kHeadLanes, sums.data() + set * kHeadLanes,
                                factors.data() + set * kHeadLanes);
      }
      for (size_t r = 0; r < rank_; r += ranks) {
        kernels_.attend_values({tile.data(), dtype_, count, width_}, sets, weights.data(),
                               first == 0 ? nullptr : factors.data(), r, std::min(rank_, r + ranks),
                               context_set, context.data());
      }
    }
    std::vector<std::vector<float>> divided;
    for (size_t set = 0; set < sets; ++set) {
      const auto begin = context.begin() + static_cast<std::ptrdiff_t>(set * context_set);
      divided.emplace_back(begin, begin + static_cast<std::ptrdiff_t>(rank_ * kHeadLanes));
      for (size_t i = 0; i < divided.back().size(); ++i) {
        divided.back()[i] /= sums[set * kHeadLanes + i % kHeadLanes];
      }
    }
    return divided;
  }

 private:
  const std::byte* At(size_t row) const {
    return dtype_ == Dtype::kF32
               ? reinterpret_cast<const std::byte*>(rows_.data() + row * width_)
               : reinterpret_cast<const std::byte*>(halves_.data() + row * width_);
  }

  const KernelTable& kernels_;
  const size_t rank_;
  const size_t width_;
  const Dtype dtype_;
  std::vector<float> rows_;
  std::vector<uint16_t> halves_;
  std::vector<float> queries_ = std::vector<float>(width_ * kHeadLanes);
};

TEST_P(KernelTest, AttendIsSoftmaxAttention) {
  for (const Dtype dtype : {Dtype::kF32, Dtype::kBf16}) {
    for (const size_t rank : {7, 32, 87, 128}) {
      const AttendCase one(kernels(), rank, dtype);
      const std::vector<float> context = one.Attend(kTileKeys, rank)[0];
      const std::vector<float> queries = one.queries_by_head();
      for (size_t h = 0; h < AttendCase::kHeads; ++h) {
        const auto expected =
            PlainAttention(std::span(queries).subspan(h * one.width(), one.width()), one.rows(),
                           one.width(), rank, AttendCase::kCount, AttendCase::kScale);
        for (size_t r = 0; r < rank; ++r) {
          EXPECT_NEAR(context[r * kHeadLanes + h], expected[r], 2e-5);
        }
      }
    }
  }
}

TEST_P(KernelTest, AttendGivesTheSameBitsHoweverItIsCut) {
  for (const size_t rank : {7, 87, 128}) {
    const AttendCase here(kernels(), rank, Dtype::kBf16);
    const AttendCase there(*AvailableKernels().back(), rank, Dtype::kBf16);
    const std::vector<float> whole = there.Attend(kTileKeys, rank)[0];
    const auto same = [&](const std::vector<float>& context) {
      for (size_t r = 0; r < rank; ++r) {
        for (size_t h = 0; h < AttendCase::kHeads; ++h) {
          ASSERT_EQ(context[r * kHeadLanes + h], whole[r * kHeadLanes + h]) << r << " " << h;
        }
      }
    };
    same(here.Attend(kTileKeys, rank)[0]);
    same(here.Attend(16, 32)[0]);
    same(here.Attend(5, 3)[0]);
    for (const size_t sets : {2, 3, 4}) {
      for (const auto& context : here.Attend(kTileKeys, rank, sets)) same(context);
      for (const auto& context : here.Attend(5, 19, sets)) same(context);
    }
  }
}

TEST_P(KernelTest, IndexScoresAreWeightedPositiveProducts) {
  for (const Dtype dtype : {Dtype::kF32, Dtype::kBf16}) {
    for (const size_t width : {7, 16, 43, 128}) {
      for (const size_t count : {1, 16, 22, 64}) {
        constexpr size_t kRows = 2;
        constexpr size_t kHeads = 11;
        std::vector<float> keys = Random(kTileKeys * width, 3);
        if (dtype == Dtype::kBf16) {
          for (float& key : keys) key = RoundBf16(key);
        }
        std::vector<uint16_t> halves;
        for (const float key : keys) halves.push_back(NarrowBf16(key));
        const auto* stored = dtype == Dtype::kF32
                                 ? reinterpret_cast<const std::byte*>(keys.data())
                                 : reinterpret_cast<const std::byte*>(halves.data());
        const std::vector<float> queries = Random(kRows * kHeads * width, 4);
        const std::vector<float> weights = Random(kRows * kHeads, 5);
        std::vector<float> scores(kRows * kTileKeys, 99.0f);
        std::vector<float> columns(width * 16, std::nanf(""));
        kernels().index_scores({stored, dtype, width, count, stored, queries.data(), weights.data(),
                                kRows, kHeads, 0.125f, scores.data(), kTileKeys, columns.data()});
        for (size_t r = 0; r < kRows; ++r) {
          for (size_t s = 0; s < kTileKeys; ++s) {
            float sum = 0;
            for (size_t h = 0; h < kHeads; ++h) {
              float dot = 0;
              for (size_t d = 0; d < width; ++d) {
                dot = std::fma(keys[s * width + d], queries[(r * kHeads + h) * width + d], dot);
              }
              sum += weights[r * kHeads + h] * std::max(dot, 0.0f);
            }
            EXPECT_EQ(scores[r * kTileKeys + s], s < count ? 0.125f * sum : 99.0f) << s;
          }
        }
      }
    }
  }
}

TEST(Fingerprint, IsTheSameForEveryIsaAndDiffersByProfile) {
  const Profile bf16 = *ParseProfile("bf16");
  const Profile exact = *ParseProfile("exact-f32");
  const std::string expected = Fingerprint(bf16, *AvailableKernels().front());
  EXPECT_EQ(expected.size(), 16u);
  for (const KernelTable* table : AvailableKernels())
    EXPECT_EQ(Fingerprint(bf16, *table), expected);
  EXPECT_NE(Fingerprint(exact, *AvailableKernels().front()), expected);
}

TEST(KernelsFor, KnowsItsNames) {
  EXPECT_EQ(*KernelsFor("auto"), AvailableKernels().front());
  EXPECT_EQ((*KernelsFor("baseline"))->isa, "baseline");
  EXPECT_EQ(KernelsFor("sse9").status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_FALSE(ParseProfile("fp7").ok());
}

TEST(Bf16, RoundsToNearestEvenAndKeepsNan) {
  EXPECT_EQ(NarrowBf16(1.0f), 0x3F80);
  EXPECT_EQ(RoundBf16(0x1.01p0f), 1.0f);           // halfway: to the even neighbour below
  EXPECT_EQ(RoundBf16(0x1.03p0f), 0x1.04p0f);      // halfway: to the even neighbour above
  EXPECT_EQ(RoundBf16(0x1.010002p0f), 0x1.02p0f);  // just above halfway
  EXPECT_TRUE(std::isnan(RoundBf16(std::nanf(""))));
  const float tiny_nan = __builtin_bit_cast(float, 0x7F800001u);
  EXPECT_TRUE(std::isnan(RoundBf16(tiny_nan)));
  EXPECT_EQ(RoundBf16(-INFINITY), -INFINITY);
}

TEST(Math, ExpIsWithinTwoUlpOfTheTruth) {
  for (float x = -87.0f; x < 88.7f; x += 0.00137f) {
    const double truth = std::exp(static_cast<double>(x));
    const float nearest = static_cast<float>(truth);
    const double ulp = double{std::nextafterf(nearest, INFINITY)} - nearest;
    ASSERT_LE(std::abs(Exp(x) - truth), 2.0 * ulp) << x;
  }
  EXPECT_EQ(Exp(0.0f), 1.0f);
  EXPECT_EQ(Exp(-INFINITY), 0.0f);
  EXPECT_EQ(Exp(-200.0f), 0.0f);
  EXPECT_EQ(Exp(100.0f), INFINITY);
  EXPECT_TRUE(std::isnan(Exp(std::nanf(""))));
  EXPECT_NEAR(Exp(-100.0f), std::exp(-100.0), 2e-45);  // subnormal
}

TEST(Math, SigmoidAndSiluSaturate) {
  EXPECT_EQ(Sigmoid(0.0f), 0.5f);
  EXPECT_EQ(Sigmoid(200.0f), 1.0f);
  EXPECT_EQ(Sigmoid(-200.0f), 0.0f);
  EXPECT_EQ(Silu(50.0f), 50.0f);
  EXPECT_EQ(Silu(-300.0f), -0.0f);
  EXPECT_NEAR(Silu(-1.5f), -1.5 / (1.0 + std::exp(1.5)), 1e-7);
}

TEST(Math, Float64FunctionsAreExactEnough) {
  for (double x = -1.9e6; x < 2e6; x += 773.77) {
    const SinCos turn = SinCos64(x);
    ASSERT_NEAR(turn.sin, std::sin(x), 1e-9) << x;
    ASSERT_NEAR(turn.cos, std::cos(x), 1e-9) << x;
  }
  for (double x = 0; x < 30; x += 0.0371) {
    ASSERT_NEAR(SinCos64(x).sin, std::sin(x), 1e-14);
    ASSERT_NEAR(Exp64(-x), std::exp(-x), 1e-15 * std::exp(-x) * 4);
  }
  for (double x = 1e-300; x < 1e300; x *= 3.7) {
    ASSERT_NEAR(Log64(x), std::log(x), 1e-15 * std::max(1.0, std::abs(std::log(x))));
  }
}

}  // namespace
}  // namespace expertmesh::model

// Scalars of docs/formats.md §7.2 against tables that this code did not make.
#include "model/formats/scalar.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

namespace expertmesh::model {
namespace {

// Value of each code from 0x00 to 0x7E times 512, as PyTorch's float8_e4m3fn gives it.
constexpr int kE4m3Times512[127] = {
    0,      1,      2,      3,      4,      5,      6,     7,     8,     9,      10,     11,
    12,     13,     14,     15,     16,     18,     20,    22,    24,    26,     28,     30,
    32,     36,     40,     44,     48,     52,     56,    60,    64,    72,     80,     88,
    96,     104,    112,    120,    128,    144,    160,   176,   192,   208,    224,    240,
    256,    288,    320,    352,    384,    416,    448,   480,   512,   576,    640,    704,
    768,    832,    896,    960,    1024,   1152,   1280,  1408,  1536,  1664,   1792,   1920,
    2048,   2304,   2560,   2816,   3072,   3328,   3584,  3840,  4096,  4608,   5120,   5632,
    6144,   6656,   7168,   7680,   8192,   9216,   10240, 11264, 12288, 13312,  14336,  15360,
    16384,  18432,  20480,  22528,  24576,  26624,  28672, 30720, 32768, 36864,  40960,  45056,
    49152,  53248,  57344,  61440,  65536,  73728,  81920, 90112, 98304, 106496, 114688, 122880,
    131072, 147456, 163840, 180224, 196608, 212992, 229376};

TEST(E4m3, All256CodesDecodeAsTheTableAndEncodeBack) {
  for (int code = 0; code < 127; ++code) {
    const float expected = static_cast<float>(kE4m3Times512[code]) / 512.0f;
    const auto positive = static_cast<uint8_t>(code);
    const auto negative = static_cast<uint8_t>(code | 0x80);
    EXPECT_EQ(DecodeE4m3(positive), expected) << code;
    EXPECT_EQ(DecodeE4m3(negative), -expected) << code;
    EXPECT_TRUE(std::signbit(DecodeE4m3(negative))) << code;
    EXPECT_EQ(EncodeE4m3(expected), positive);
    EXPECT_EQ(EncodeE4m3(-expected), negative);
  }
  EXPECT_TRUE(std::isnan(DecodeE4m3(0x7F)));
  EXPECT_TRUE(std::isnan(DecodeE4m3(0xFF)));
}

// docs/formats.md §12.
TEST(E4m3, GoldenConstants) {
  EXPECT_EQ(DecodeE4m3(0x7E), 448.0f);
  EXPECT_EQ(DecodeE4m3(0x01), 0x1p-9f);
  EXPECT_EQ(DecodeE4m3(0x08), 0x1p-6f);
  EXPECT_EQ(DecodeE4m3(0x38), 1.0f);
}

TEST(E4m3, HalfwayGoesToTheEvenCodeAndTheRestToTheNearest) {
  for (int code = 0; code + 1 < 127; ++code) {
    const float low = static_cast<float>(kE4m3Times512[code]) / 512.0f;
    const float high = static_cast<float>(kE4m3Times512[code + 1]) / 512.0f;
    const float half = (low + high) / 2;  // exact
    const int even = code % 2 == 0 ? code : code + 1;
    EXPECT_EQ(EncodeE4m3(half), even) << code;
    EXPECT_EQ(EncodeE4m3(std::nextafter(half, 0.0f)), code) << code;
    EXPECT_EQ(EncodeE4m3(std::nextafter(half, 1e9f)), code + 1) << code;
    EXPECT_EQ(EncodeE4m3(-half), even | 0x80) << code;
  }
}

TEST(E4m3, SaturatesAndKeepsNaN) {
  for (const float large : {449.0f, 464.0f, 480.0f, 1e30f, INFINITY}) {
    EXPECT_EQ(EncodeE4m3(large), 0x7E) << large;
    EXPECT_EQ(EncodeE4m3(-large), 0xFE) << large;
  }
  EXPECT_EQ(EncodeE4m3(NAN), 0x7F);
  EXPECT_EQ(EncodeE4m3(1e-30f), 0x00);
  EXPECT_EQ(EncodeE4m3(-1e-30f), 0x80);
}

TEST(E8m0, EveryCodeIsItsPowerOfTwo) {
  for (int code = 0; code < 255; ++code) {
    const auto power = static_cast<float>(std::ldexp(1.0, code - 127));
    EXPECT_EQ(DecodeE8m0(static_cast<uint8_t>(code)), power) << code;
    EXPECT_EQ(CeilE8m0(power), code);
    EXPECT_EQ(CeilE8m0(std::nextafter(power, INFINITY)), std::min(code + 1, 254));
    EXPECT_EQ(CeilE8m0(std::nextafter(power, 0.0f)), code);
  }
  EXPECT_TRUE(std::isnan(DecodeE8m0(0xFF)));
  EXPECT_EQ(DecodeE8m0(127), 1.0f);
  EXPECT_EQ(DecodeE8m0(120), 0x1p-7f);
  EXPECT_EQ(CeilE8m0(1e-45f), 0);
  EXPECT_EQ(CeilE8m0(3e38f), 254);
}

TEST(E2m1, All16CodesAndTheTies) {
  const float values[8] = {0, 0.5f, 1, 1.5f, 2, 3, 4, 6};
  for (int code = 0; code < 8; ++code) {
    EXPECT_EQ(DecodeE2m1(static_cast<uint8_t>(code)), values[code]);
    EXPECT_EQ(DecodeE2m1(static_cast<uint8_t>(code | 8)), -values[code]);
    EXPECT_EQ(EncodeE2m1(values[code]), code);
    EXPECT_EQ(EncodeE2m1(-values[code]), code | 8);
  }
  // docs/formats.md §12, and the tie at 5 of §7.3.
  const std::pair<float, float> ties[] = {{0.25f, 0.0f}, {0.75f, 1.0f}, {1.25f, 1.0f},
                                          {1.75f, 2.0f}, {2.5f, 2.0f},  {3.5f, 4.0f},
                                          {5.0f, 4.0f}};
  const float below[7] = {0, 0.5f, 1, 1.5f, 2, 3, 4};
  const float above[7] = {0.5f, 1, 1.5f, 2, 3, 4, 6};
  for (int i = 0; i < 7; ++i) {
    const auto [tie, expected] = ties[i];
    EXPECT_EQ(DecodeE2m1(EncodeE2m1(tie)), expected) << tie;
    EXPECT_EQ(DecodeE2m1(EncodeE2m1(-tie)), -expected) << tie;
    EXPECT_EQ(DecodeE2m1(EncodeE2m1(std::nextafter(tie, 0.0f))), below[i]) << tie;
    EXPECT_EQ(DecodeE2m1(EncodeE2m1(std::nextafter(tie, 9.0f))), above[i]) << tie;
  }
  EXPECT_EQ(DecodeE2m1(EncodeE2m1(1e9f)), 6.0f);
}

TEST(F16, KnownCodesAndEveryCodeBack) {
  const std::pair<uint16_t, float> known[] = {
      {0x0000, 0.0f},        {0x8000, -0.0f},    {0x3C00, 1.0f},     {0xC000, -2.0f},
      {0x7BFF, 65504.0f},    {0x0400, 0x1p-14f}, {0x0001, 0x1p-24f}, {0x03FF, 1023 * 0x1p-24f},
      {0x3555, 0.33325195f}, {0x7C00, INFINITY}, {0xFC00, -INFINITY}};
  for (const auto& [code, value] : known) EXPECT_EQ(DecodeF16(code), value) << code;
  for (uint32_t code = 0; code < 65536; ++code) {
    const float value = DecodeF16(static_cast<uint16_t>(code));
    if (std::isnan(value)) {
      EXPECT_GT(code & 0x7FFFu, 0x7C00u);
      EXPECT_TRUE(std::isnan(DecodeF16(EncodeF16(value))));
    } else {
      EXPECT_EQ(EncodeF16(value), code);
    }
  }
}

TEST(F16, RoundsToNearestEven) {
  for (uint32_t code = 0; code < 0x7BFFu; ++code) {
    const float low = DecodeF16(static_cast<uint16_t>(code));
    const float high = DecodeF16(static_cast<uint16_t>(code + 1));
    const float half = (low + high) / 2;  // exact
    EXPECT_EQ(EncodeF16(half), code + code % 2);
    EXPECT_EQ(EncodeF16(std::nextafter(half, 0.0f)), code);
    EXPECT_EQ(EncodeF16(std::nextafter(half, 1e9f)), code + 1);
  }
  EXPECT_EQ(EncodeF16(std::nextafter(65520.0f, 0.0f)), 0x7BFF);
  EXPECT_EQ(EncodeF16(65520.0f), 0x7C00);
}

}  // namespace
}  // namespace expertmesh::model

#include "services/base/crc32c.h"

#include <array>
#include <cstring>

namespace expertmesh::base {
namespace {

constexpr std::array<uint32_t, 256> MakeTable() {
  std::array<uint32_t, 256> table{};
  for (uint32_t i = 0; i < 256; ++i) {
    uint32_t crc = i;
    for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1) ^ ((crc & 1) ? 0x82F63B78u : 0u);
    table[i] = crc;
  }
  return table;
}
constexpr std::array<uint32_t, 256> kTable = MakeTable();

#if defined(__x86_64__)
// The register after so many more zero bytes is a linear function of the register: one table per
// byte.
using ZeroTable = std::array<std::array<uint32_t, 256>, 4>;

constexpr ZeroTable MakeZeroTable(size_t bytes) {
  ZeroTable table{};
  for (uint32_t i = 0; i < 32; ++i) {
    uint32_t state = 1u << i;
    for (size_t byte = 0; byte < bytes; ++byte) state = kTable[state & 0xFF] ^ (state >> 8);
    // Every table entry that has this bit set gets its share.
    for (uint32_t b = 0; b < 256; ++b) {
      if ((b >> (i % 8)) & 1) table[i / 8][b] ^= state;
    }
  }
  return table;
}

uint32_t Skip(const ZeroTable& zeros, uint64_t state) {
  return zeros[0][state & 0xFF] ^ zeros[1][(state >> 8) & 0xFF] ^ zeros[2][(state >> 16) & 0xFF] ^
         zeros[3][(state >> 24) & 0xFF];
}

// Long runs, and rows of a few hundred bytes: a row of 264 is three short strides and three words.
constexpr size_t kLongStride = 2048;
constexpr size_t kShortStride = 80;
constexpr ZeroTable kLongZeros = MakeZeroTable(kLongStride);
constexpr ZeroTable kShortZeros = MakeZeroTable(kShortStride);

uint64_t Word(const std::byte* p) {
  uint64_t word;
  std::memcpy(&word, p, 8);
  return word;
}

// The instruction takes three cycles but one can start in each: three strides run side by side.
template <size_t kStride>
__attribute__((target("sse4.2"), always_inline)) inline uint64_t ThreeStrides(
    const ZeroTable& zeros, std::span<const std::byte>& bytes, uint64_t state) {
  while (bytes.size() >= 3 * kStride) {
    const std::byte* p = bytes.data();
    uint64_t second = 0;
    uint64_t third = 0;
    for (size_t i = 0; i < kStride; i += 8) {
      state = __builtin_ia32_crc32di(state, Word(p + i));
      second = __builtin_ia32_crc32di(second, Word(p + kStride + i));
      third = __builtin_ia32_crc32di(third, Word(p + 2 * kStride + i));
    }
    state = Skip(zeros, Skip(zeros, state) ^ second) ^ third;
    bytes = bytes.subspan(3 * kStride);
  }
  return state;
}

__attribute__((target("sse4.2"))) uint32_t Crc32cSse42(std::span<const std::byte> bytes,
                                                       uint32_t crc) {
  uint64_t state = ~crc;
  state = ThreeStrides<kLongStride>(kLongZeros, bytes, state);
  state = ThreeStrides<kShortStride>(kShortZeros, bytes, state);
  const std::byte* p = bytes.data();
  size_t n = bytes.size();
  for (; n >= 8; p += 8, n -= 8) state = __builtin_ia32_crc32di(state, Word(p));
  auto tail = static_cast<uint32_t>(state);
  if (n >= 4) {
    uint32_t word;
    std::memcpy(&word, p, 4);
    tail = __builtin_ia32_crc32si(tail, word);
    p += 4;
    n -= 4;
  }
  for (; n > 0; ++p, --n) tail = __builtin_ia32_crc32qi(tail, static_cast<uint8_t>(*p));
  return ~tail;
}
#endif

}  // namespace

uint32_t Crc32cPortable(std::span<const std::byte> bytes, uint32_t crc) {
  crc = ~crc;
  for (std::byte b : bytes) crc = kTable[(crc ^ static_cast<uint8_t>(b)) & 0xFF] ^ (crc >> 8);
  return ~crc;
}

uint32_t Crc32c(std::span<const std::byte> bytes, uint32_t crc) {
#if defined(__x86_64__)
  static const bool has_sse42 = __builtin_cpu_supports("sse4.2");
  if (has_sse42) return Crc32cSse42(bytes, crc);
#endif
  return Crc32cPortable(bytes, crc);
}

}  // namespace expertmesh::base

#include "model/writer/numpy_random.h"

#include <bit>
#include <cstddef>
#include <cstdint>

namespace expertmesh::model {
namespace {

__extension__ using Wide = unsigned __int128;

constexpr size_t kPoolWords = 4;
constexpr Wide kMultiplier = Wide{2549297995355413924u} << 64 | Wide{4865540595714422341u};

// One hash of SeedSequence; the constant moves on with every word.
class WordHash {
 public:
  WordHash(uint32_t start, uint32_t factor) : constant_(start), factor_(factor) {}
  uint32_t operator()(uint32_t word) {
    word ^= constant_;
    constant_ *= factor_;
    word *= constant_;
    return word ^ word >> 16;
  }

 private:
  uint32_t constant_;
  uint32_t factor_;
};

uint32_t Mix(uint32_t a, uint32_t b) {
  const uint32_t mixed = 0xca01f9ddu * a - 0x4973f715u * b;
  return mixed ^ mixed >> 16;
}

// SeedSequence(seed).generate_state(4, uint64).
std::array<uint64_t, 4> SeedState(uint64_t seed) {
  const std::array<uint32_t, kPoolWords> entropy = {static_cast<uint32_t>(seed),
                                                    static_cast<uint32_t>(seed >> 32)};
  WordHash absorb(0x43b0d7e5u, 0x931e8875u);
  std::array<uint32_t, kPoolWords> pool{};
  for (size_t i = 0; i < kPoolWords; ++i) pool[i] = absorb(entropy[i]);
  for (size_t from = 0; from < kPoolWords; ++from) {
    for (size_t to = 0; to < kPoolWords; ++to) {
      if (from != to) pool[to] = Mix(pool[to], absorb(pool[from]));
    }
  }
  WordHash squeeze(0x8b51f9ddu, 0x58f38dedu);
  std::array<uint64_t, 4> state{};
  for (size_t i = 0; i < 2 * state.size(); ++i) {
    state[i / 2] |= uint64_t{squeeze(pool[i % kPoolWords])} << (32 * (i % 2));
  }
  return state;
}

}  // namespace

NumpyRandom::NumpyRandom(uint64_t seed) {
  const std::array<uint64_t, 4> words = SeedState(seed);
  increment_ = (Wide{words[2]} << 64 | words[3]) << 1 | 1;
  Step();
  state_ += Wide{words[0]} << 64 | words[1];
  Step();
}

void NumpyRandom::Step() { state_ = state_ * kMultiplier + increment_; }

uint64_t NumpyRandom::Next() {
  Step();
  const auto high = static_cast<uint64_t>(state_ >> 64);
  return std::rotr(high ^ static_cast<uint64_t>(state_), static_cast<int>(high >> 58));
}

// The high half of a product of 128 bits; low halves that would favour some numbers are drawn anew.
uint64_t NumpyRandom::Below(uint64_t bound) {
  Wide product = Wide{Next()} * bound;
  if (static_cast<uint64_t>(product) < bound) {
    const uint64_t threshold = (0 - bound) % bound;
    while (static_cast<uint64_t>(product) < threshold) product = Wide{Next()} * bound;
  }
  return static_cast<uint64_t>(product >> 64);
}

}  // namespace expertmesh::model

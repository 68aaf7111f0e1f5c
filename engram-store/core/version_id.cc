#include "engram-store/core/version_id.h"

#include <cstring>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "services/base/hash.h"

namespace expertmesh::engram_store {
namespace {

using Words = std::array<uint64_t, 4>;
constexpr char kAddressFormat[] = "expertmesh engram 1\n";

Words HashOf(uint32_t layer, uint64_t block, std::span<const std::byte> bytes) {
  base::Sha256 hash;
  hash.Update(std::as_bytes(std::span(&layer, 1)));
  hash.Update(std::as_bytes(std::span(&block, 1)));
  hash.Update(bytes);
  const auto digest = hash.Finish();
  Words words;
  std::memcpy(words.data(), digest.data(), digest.size());
  return words;
}

}  // namespace

ContentSum::ContentSum(const Bytes& bytes) {
  std::memcpy(words_.data(), bytes.data(), bytes.size());
}

void ContentSum::Add(uint32_t layer, uint64_t block, std::span<const std::byte> bytes) {
  const Words hash = HashOf(layer, block, bytes);
  unsigned carry = 0;
  for (size_t i = 0; i < words_.size(); ++i) {
    const uint64_t sum = words_[i] + hash[i];
    const uint64_t with_carry = sum + carry;
    carry = static_cast<unsigned>(sum < hash[i]) | static_cast<unsigned>(with_carry < sum);
    words_[i] = with_carry;
  }
}

void ContentSum::Subtract(uint32_t layer, uint64_t block, std::span<const std::byte> bytes) {
  const Words hash = HashOf(layer, block, bytes);
  unsigned borrow = 0;
  for (size_t i = 0; i < words_.size(); ++i) {
    const uint64_t difference = words_[i] - hash[i];
    const uint64_t with_borrow = difference - borrow;
    borrow = static_cast<unsigned>(words_[i] < hash[i]) |
             static_cast<unsigned>(difference < with_borrow);
    words_[i] = with_borrow;
  }
}

ContentSum::Bytes ContentSum::bytes() const {
  Bytes bytes;
  std::memcpy(bytes.data(), words_.data(), bytes.size());
  return bytes;
}

VersionBytes VersionOf(const TableShape& shape, const ContentSum& sum) {
  base::Sha256 hash;
  hash.Update(kAddressFormat);
  hash.Update(absl::StrCat(static_cast<uint32_t>(shape.format), "\n", shape.width, "\n"));
  for (const TableShape::Layer& layer : shape.layers) {
    hash.Update(absl::StrCat(layer.layer, "\n", layer.rows, "\n"));
  }
  const ContentSum::Bytes bytes = sum.bytes();
  hash.Update(std::as_bytes(std::span(bytes)));
  return hash.Finish();
}

std::string VersionName(const VersionBytes& version) { return base::Hex(version); }

VersionBytes VersionFromName(const std::string& name) {
  VersionBytes version{};
  const bool is_hex = name.size() == 2 * version.size() &&
                      name.find_first_not_of("0123456789abcdef") == std::string::npos;
  if (!is_hex) return version;
  const std::string bytes = absl::HexStringToBytes(name);
  std::memcpy(version.data(), bytes.data(), version.size());
  return version;
}

}  // namespace expertmesh::engram_store

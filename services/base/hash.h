// Content hashes: SHA-256 (OpenSSL), its first 64 bits, and HMAC with it.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>

namespace expertmesh::base {

/// Incremental SHA-256. Not thread-safe.
class Sha256 {
 public:
  Sha256();
  ~Sha256();
  Sha256(const Sha256&) = delete;
  Sha256& operator=(const Sha256&) = delete;

  void Update(std::span<const std::byte> bytes);
  void Update(std::string_view text);
  std::array<uint8_t, 32> Finish();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

/// Lower-case hex of a digest.
std::string Hex(std::span<const uint8_t> bytes);
/// HMAC-SHA-256 (RFC 2104).
std::array<uint8_t, 32> HmacSha256(std::string_view key, std::string_view text);
/// First 8 bytes of SHA-256, little-endian.
uint64_t Hash64(std::span<const std::byte> bytes);
uint64_t Hash64(std::string_view text);

}  // namespace expertmesh::base

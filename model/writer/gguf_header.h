// The head of a GGUF file: metadata and the list of tensors (docs/formats.md §7.4).
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace expertmesh::model {

/// Numbers are ggml's.
enum class GgmlType : uint32_t { kF32 = 0, kQ8_0 = 8, kBf16 = 30 };
inline constexpr uint64_t kQ8Block = 32;       // values of a Q8_0 block: an F16 scale, 32 int8
inline constexpr uint64_t kQ8BlockBytes = 34;  // value = scale · int8
inline constexpr uint64_t kGgufAlignment = 32;

/// Bytes of a row of `columns` values; a whole number of blocks.
uint64_t GgmlRowBytes(GgmlType type, uint64_t columns);

/// A tensor of the file.
struct GgufTensor {
  std::string name;
  std::vector<uint64_t> shape;  // row-major, outermost first; the file has them the other way round
  GgmlType type = GgmlType::kF32;

  uint64_t columns() const { return shape.back(); }
  uint64_t bytes() const;
};

/// The pairs of key and value, in the order of the calls.
class GgufMetadata {
 public:
  void AddU32(std::string_view key, uint32_t value);
  void AddF32(std::string_view key, float value);
  void AddBool(std::string_view key, bool value);
  void AddString(std::string_view key, std::string_view value);
  void AddStrings(std::string_view key, const std::vector<std::string>& values);
  void AddI32s(std::string_view key, const std::vector<int32_t>& values);

  uint64_t count() const { return count_; }
  const std::string& bytes() const { return bytes_; }

 private:
  void AddKey(std::string_view key, uint32_t type);

  std::string bytes_;
  uint64_t count_ = 0;
};

/// Bytes of the file before its first tensor, padding included. Tensors follow in this order, each
/// padded to kGgufAlignment.
std::string GgufHeader(const GgufMetadata& metadata, const std::vector<GgufTensor>& tensors);

/// Zero bytes between `bytes` and the next multiple of kGgufAlignment.
uint64_t GgufPadding(uint64_t bytes);

}  // namespace expertmesh::model

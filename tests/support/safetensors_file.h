// Safetensors bytes for tests: right ones, and headers that are wrong on purpose.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace expertmesh::test_support {

/// 8 bytes of length, the header text, the data.
std::string SafetensorsBytes(std::string_view header, std::string_view data);

struct TensorBytes {
  std::string name;
  std::string dtype;  // "F32", "BF16", …
  std::vector<uint64_t> shape;
  std::string bytes;
};
/// A valid file of these tensors, back to back.
std::string SafetensorsBytes(const std::vector<TensorBytes>& tensors);

}  // namespace expertmesh::test_support

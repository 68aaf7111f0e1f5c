#include "tests/support/safetensors_file.h"

namespace expertmesh::test_support {

std::string SafetensorsBytes(std::string_view header, std::string_view data) {
  std::string bytes;
  for (int i = 0; i < 8; ++i) bytes += static_cast<char>(uint64_t{header.size()} >> (8 * i));
  bytes += header;
  bytes += data;
  return bytes;
}

std::string SafetensorsBytes(const std::vector<TensorBytes>& tensors) {
  std::string header = "{";
  std::string data;
  for (const TensorBytes& tensor : tensors) {
    std::string shape;
    for (const uint64_t extent : tensor.shape) {
      shape += (shape.empty() ? "" : ",") + std::to_string(extent);
    }
    header += (header.size() > 1 ? ",\"" : "\"") + tensor.name + "\":{\"dtype\":\"" + tensor.dtype +
              "\",\"shape\":[" + shape + "],\"data_offsets\":[" + std::to_string(data.size()) + ",";
    data += tensor.bytes;
    header += std::to_string(data.size()) + "]}";
  }
  return SafetensorsBytes(header + "}", data);
}

}  // namespace expertmesh::test_support

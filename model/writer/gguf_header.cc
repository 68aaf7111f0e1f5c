#include "model/writer/gguf_header.h"

#include <bit>
#include <cstring>

namespace expertmesh::model {
namespace {

static_assert(std::endian::native == std::endian::little);

constexpr uint32_t kVersion = 3;
// Types of metadata values.
constexpr uint32_t kU32 = 4;
constexpr uint32_t kI32 = 5;
constexpr uint32_t kF32 = 6;
constexpr uint32_t kBool = 7;
constexpr uint32_t kString = 8;
constexpr uint32_t kArray = 9;

template <class T>
void Put(std::string& out, T value) {
  char bytes[sizeof(T)];
  std::memcpy(bytes, &value, sizeof(T));
  out.append(bytes, sizeof(T));
}

void PutString(std::string& out, std::string_view text) {
  Put(out, uint64_t{text.size()});
  out.append(text);
}

}  // namespace

uint64_t GgmlRowBytes(GgmlType type, uint64_t columns) {
  switch (type) {
    case GgmlType::kF32:
      return columns * 4;
    case GgmlType::kBf16:
      return columns * 2;
    case GgmlType::kQ8_0:
      return columns / kQ8Block * kQ8BlockBytes;
  }
  return 0;
}

uint64_t GgufTensor::bytes() const {
  uint64_t rows = 1;
  for (size_t i = 0; i + 1 < shape.size(); ++i) rows *= shape[i];
  return rows * GgmlRowBytes(type, columns());
}

void GgufMetadata::AddKey(std::string_view key, uint32_t type) {
  PutString(bytes_, key);
  Put(bytes_, type);
  ++count_;
}

void GgufMetadata::AddU32(std::string_view key, uint32_t value) {
  AddKey(key, kU32);
  Put(bytes_, value);
}

void GgufMetadata::AddF32(std::string_view key, float value) {
  AddKey(key, kF32);
  Put(bytes_, value);
}

void GgufMetadata::AddBool(std::string_view key, bool value) {
  AddKey(key, kBool);
  Put(bytes_, static_cast<uint8_t>(value ? 1 : 0));
}

void GgufMetadata::AddString(std::string_view key, std::string_view value) {
  AddKey(key, kString);
  PutString(bytes_, value);
}

void GgufMetadata::AddStrings(std::string_view key, const std::vector<std::string>& values) {
  AddKey(key, kArray);
  Put(bytes_, kString);
  Put(bytes_, uint64_t{values.size()});
  for (const std::string& value : values) PutString(bytes_, value);
}

void GgufMetadata::AddI32s(std::string_view key, const std::vector<int32_t>& values) {
  AddKey(key, kArray);
  Put(bytes_, kI32);
  Put(bytes_, uint64_t{values.size()});
  for (const int32_t value : values) Put(bytes_, value);
}

uint64_t GgufPadding(uint64_t bytes) {
  return (kGgufAlignment - bytes % kGgufAlignment) % kGgufAlignment;
}

std::string GgufHeader(const GgufMetadata& metadata, const std::vector<GgufTensor>& tensors) {
  std::string out = "GGUF";
  Put(out, kVersion);
  Put(out, uint64_t{tensors.size()});
  Put(out, metadata.count());
  out += metadata.bytes();
  uint64_t offset = 0;
  for (const GgufTensor& tensor : tensors) {
    PutString(out, tensor.name);
    Put(out, static_cast<uint32_t>(tensor.shape.size()));
    for (size_t i = tensor.shape.size(); i > 0; --i) Put(out, tensor.shape[i - 1]);
    Put(out, static_cast<uint32_t>(tensor.type));
    Put(out, offset);
    offset += tensor.bytes() + GgufPadding(tensor.bytes());
  }
  out.append(GgufPadding(out.size()), '\0');
  return out;
}

}  // namespace expertmesh::model

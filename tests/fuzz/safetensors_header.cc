// Headers of weight files: whatever the bytes, an error or entries inside the file that do not
// overlap.
#include <algorithm>
#include <vector>

#include "model/checkpoint.h"
#include "services/base/status.h"
#include "tests/fuzz/fuzz.h"

namespace expertmesh::fuzz {
namespace {

void Check(std::span<const std::byte> prefix, uint64_t file_bytes) {
  auto header = model::ParseSafetensorsHeader(prefix, file_bytes);
  if (!header.ok()) {
    Require(base::ReasonOf(header.status()) == base::Reason::kBadCheckpoint, "reason");
    Require(header.status().message().find('\n') == absl::string_view::npos, "one line");
    return;
  }
  Require(header->data_begin <= file_bytes, "data begins inside the file");
  std::vector<model::TensorEntry> entries = header->tensors;
  std::sort(entries.begin(), entries.end(), [](const auto& a, const auto& b) {
    return std::pair(a.begin, a.end) < std::pair(b.begin, b.end);
  });
  uint64_t end = 0;
  for (const model::TensorEntry& entry : entries) {
    Require(entry.begin <= entry.end, "begin ≤ end");
    Require(entry.begin == entry.end || entry.begin >= end, "no overlap");
    Require(entry.end <= file_bytes - header->data_begin, "inside the file");
    uint64_t elements = 1;
    for (const uint64_t size : entry.shape) elements *= size;
    Require(elements * model::TensorTypeBytes(entry.type) == entry.end - entry.begin, "size");
    end = std::max(end, entry.end);
  }
}

}  // namespace
}  // namespace expertmesh::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace expertmesh::fuzz;
  Check(Bytes(data, size), size);
  Check(Bytes(data, size), uint64_t{size} + 4096);  // the prefix of a longer file
  return 0;
}

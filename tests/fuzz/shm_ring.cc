// The reader and the writer of a ring (docs/protocol.md §6) against memory that a hostile peer
// writes at any moment: every message lies inside of what was written, or there is a fault.
#include <algorithm>
#include <cstring>
#include <memory>
#include <vector>

#include "google/protobuf/stubs/logging.h"
#include "services/base/status.h"
#include "services/transport/frame.h"
#include "services/transport/shm_ring.h"
#include "tests/fuzz/fuzz.h"

namespace expertmesh::fuzz {
namespace {

constexpr size_t kCapacity = 4096;

/// The ring's memory, twice in a row as it is mapped, and the input that fills it.
class Memory {
 public:
  explicit Memory(std::span<const std::byte> input) : input_(input), data_(2 * kCapacity) {}
  transport::RingView view() { return {&control_, data_.data(), kCapacity}; }
  uint64_t Word() {
    uint64_t word = 0;
    const size_t n = std::min(sizeof(word), input_.size());
    std::memcpy(&word, input_.data(), n);
    input_ = input_.subspan(n);
    return word;
  }
  bool empty() const { return input_.empty(); }
  // The peer writes somewhere; both mappings show it.
  void Scribble() {
    const uint64_t where = Word();
    const size_t at = where % kCapacity;
    const size_t n = std::min({(where >> 16) % 512, kCapacity - at, input_.size()});
    if (n > 0) {
      std::memcpy(data_.data() + at, input_.data(), n);
      std::memcpy(data_.data() + at + kCapacity, input_.data(), n);
    }
    input_ = input_.subspan(n);
  }
  transport::RingControl& control() { return control_; }

 private:
  std::span<const std::byte> input_;
  std::vector<std::byte> data_;
  transport::RingControl control_ = {};
};

void Read(transport::RingReader& reader, transport::BufferPool& pool, bool& fault) {
  const auto message = reader.Next();
  if (!message.ok()) {
    Require(base::ReasonOf(message.status()) == base::Reason::kFrameMalformed, "a ring's reason");
    fault = true;
    return;
  }
  if (!*message) return;
  Require((*message)->size() <= kCapacity - 16, "the message lies inside the ring");
  const std::vector<std::span<const std::byte>> slices = {**message};
  auto frame = transport::ParseDispatchFrame(slices, pool);
  if (frame.ok()) (void)transport::CheckDispatch(*frame).ok();
  reader.Consume();
}

}  // namespace
}  // namespace expertmesh::fuzz

extern "C" int LLVMFuzzerInitialize(int*, char***) {
  google::protobuf::SetLogHandler(nullptr);  // it would print a line per bad string
  return 0;
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace expertmesh;
  fuzz::Memory memory(fuzz::Bytes(data, size));
  const auto pool = std::make_shared<transport::BufferPool>();
  transport::RingReader reader(memory.view());
  transport::RingWriter writer(memory.view());
  const std::vector<std::byte> body(3 * fuzz::kCapacity / 4);
  bool fault = false;
  while (!memory.empty() && !fault) {
    const uint64_t step = memory.Word();
    switch (step % 5) {
      case 0:
        memory.control().written = memory.Word();
        break;
      case 1:
        memory.control().read = memory.Word();
        break;
      case 2:
        memory.Scribble();
        break;
      case 3: {
        const auto written = writer.TryWrite({}, std::span(body).first((step >> 8) % body.size()));
        fault = !written.ok();
        break;
      }
      default:
        fuzz::Read(reader, *pool, fault);
    }
  }
  return 0;
}

// Weights as they lie in memory, kept in a file beside the model, so that the next start reads them
// instead of packing them. The file is a copy of an arena in the order of its allocations: loading
// again takes the same pieces in the same order.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "model/kernels/packed_matrix.h"

namespace expertmesh::model {

/// Less is packed in less than a second.
inline constexpr uint64_t kPackedFileBytesMin = uint64_t{64} << 20;

/// The pieces of one file, handed out in order. Used while loading only, by one thread.
class PackedWeights {
 public:
  explicit PackedWeights(std::span<std::byte> weights) : left_(weights) {}
  /// The next piece as WeightArena::Allocate would round it, or nullptr if so much is not left.
  std::byte* Take(size_t bytes);
  bool empty() const { return left_.empty(); }

 private:
  std::span<std::byte> left_;
};

/// What a file holds; any difference makes it stale.
struct PackedKey {
  std::string directory;  // of the model; the file stands there
  std::string revision;
  std::string profile;
  std::string part;          // "attention", "experts-0-31"
  uint64_t bytes_min = 0;    // less is not worth a file
  std::string Path() const;  // expertmesh-packed-<profile>-<part>.bin
  std::string Text() const;  // what the header says
};

/// Fills `arena` (empty) by `load`: with the pieces of the file if it is this key's and every
/// checksum holds, else with nullptr, and then writes the file. `load` may be called twice: once
/// with pieces that turn out not to fit, then from the start without. A file that cannot be written
/// (read-only directory, no space) costs time at the next start, nothing else.
absl::Status LoadPacked(const PackedKey& key, WeightArena& arena,
                        const std::function<absl::Status(PackedWeights*)>& load);

}  // namespace expertmesh::model

// submit → completion: how dispatch frames reach experts. Back ends: inproc, grpc, shm; nccl fits
// the same interface. Every back end passes tests/services/transport/conformance.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "services/transport/bell.h"
#include "services/transport/frame.h"

namespace expertmesh::transport {

/// What a back end can do; the dispatcher asks instead of assuming.
struct Capabilities {
  bool dynamic_peers = false;    // AddPeer and RemovePeer while calls run
  bool reorders = false;         // answers may overtake each other
  bool cancels = false;          // Cancel frees the caller before the peer answers
  bool announces_sizes = false;  // needs the answer's size before the call (fixed buffers)
  bool host_memory = true;       // frames live in host memory
  bool device_memory = false;    // frames may live in device memory
};

/// Decode and prefill travel on separate channels, so that a large prompt never delays a token.
enum class Purpose { kDecode, kPrefill };

struct Peer {
  std::string name;          // unique, e.g. "expert-0-1"
  uint64_t incarnation = 0;  // random per start of the peer; a peer of another one is refused
  std::string address;       // its gRPC services
  std::string frames = {};   // where its frames come in
  friend bool operator==(const Peer&, const Peer&) = default;
};

/// Exactly once per Submit, on any thread, possibly before Submit returns. OK: a checked frame with
/// the sums wanted. Else the peer's refusal, kPeerLost, kCancelled or a bad frame.
using Completion = std::function<void(absl::StatusOr<CombineFrame>)>;

/// A peer came up, or is reached in another way from now on (`why`: "inproc", "grpc" or "shm"), or
/// went down (`why`: the reason); on any thread, one call at a time per peer.
using PeerListener = std::function<void(const std::string& peer, bool up, const std::string& why)>;

/// Thread-safe. The destructor completes every call in flight, with kCancelled or kPeerLost, and
/// waits for callbacks.
class Transport {
 public:
  virtual ~Transport() = default;
  virtual Capabilities capabilities() const = 0;
  /// Starts to connect; a peer of that name and another incarnation or address is replaced.
  virtual void AddPeer(const Peer& peer) = 0;
  /// Calls in flight end with kPeerLost.
  virtual void RemovePeer(const std::string& name) = 0;
  /// header.call_id is unique among calls in flight.
  virtual void Submit(const std::string& peer, Purpose purpose, DispatchFrame frame,
                      Completion done) = 0;
  /// The call completes with kCancelled unless it already has; a late answer is dropped.
  virtual void Cancel(uint64_t call_id) = 0;
  /// The one thread that waits for answers sleeps here: until `bell` rings, something completed, or
  /// `wait` is over (nothing: for ever); it may also return for no reason. A back end may take in
  /// answers meanwhile, so that completions run on this thread and no other has to be woken.
  virtual void Wait(Bell& bell, std::optional<base::Micros> wait) { bell.Wait(wait); }
};

/// What serves frames at the other end: called on any thread, replies once, from any thread.
using Reply = std::function<void(CombineFrame)>;
using FrameHandler = std::function<void(absl::StatusOr<DispatchFrame>, Reply)>;

}  // namespace expertmesh::transport

// The transport between hosts: per peer two bidirectional gRPC streams (decode, prefill), each on
// its own connection, over TCP or a Unix socket: no copy on send, one gather on receipt.
#pragma once

#include <array>
#include <map>
#include <memory>
#include <mutex>
#include <string>

#include "services/transport/shared_reactor.h"
#include "services/transport/transport.h"

namespace expertmesh::transport {

namespace internal {
class DispatchStream;
}

/// A thread in Wait takes in answers itself; while there is none, a thread of the transport does.
class GrpcTransport final : public Transport {
 public:
  /// `incarnation` is ours, sent in the handshake.
  GrpcTransport(uint64_t incarnation, PeerListener listener);
  ~GrpcTransport() override;

  Capabilities capabilities() const override;
  void AddPeer(const Peer& peer) override;
  void RemovePeer(const std::string& name) override;
  void Submit(const std::string& peer, Purpose purpose, DispatchFrame frame,
              Completion done) override;
  void Cancel(uint64_t call_id) override;
  void Wait(Bell& bell, std::optional<base::Micros> wait) override;
  /// The same, and until `other` rings, which is not taken.
  void Wait(Bell& bell, Bell& other, std::optional<base::Micros> wait);

 private:
  struct Link {
    Peer peer;
    std::array<std::shared_ptr<internal::DispatchStream>, 2> streams;  // by Purpose
  };
  void StopLink(Link link, const std::string& why);

  const uint64_t incarnation_;
  const PeerListener listener_;
  const std::shared_ptr<BufferPool> buffers_;
  internal::SharedReactor reactor_;
  std::mutex mutex_;
  std::map<std::string, Link> links_;  // guarded by mutex_
};

}  // namespace expertmesh::transport

// The abstract Unix socket of a ring link (docs/protocol.md §6): it carries the memfd once, then
// single bytes that wake a sleeper, and its end is the end of the peer.
#pragma once

#include <array>
#include <cstddef>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "services/transport/shm_segment.h"
#include "services/transport/unique_fd.h"

namespace expertmesh::transport {

using Ticket = std::array<std::byte, 16>;

/// A listening socket of that name; does not block. kInternal if the system refuses.
absl::StatusOr<UniqueFd> ListenAbstract(const std::string& name);
/// The next connection, if there is one; does not block.
UniqueFd AcceptOne(const UniqueFd& listener);
/// kPeerLost if nobody listens there.
absl::StatusOr<UniqueFd> ConnectAbstract(const std::string& name);

/// What the attention worker sends first.
struct RingHello {
  Ticket ticket = {};
  SegmentSizes sizes;
  UniqueFd memory;
};
/// kPeerLost if the peer is gone.
absl::Status SendHello(const UniqueFd& socket, const Ticket& ticket, const ShmSegment& segment);
/// Nothing yet (nullopt), the hello, or kFrameMalformed / kPeerLost; does not block.
absl::StatusOr<std::optional<RingHello>> ReceiveHello(const UniqueFd& socket);
absl::Status SendWelcome(const UniqueFd& socket);
/// Waits for the answer to SendHello. kPeerLost if the peer closes or says nothing for so long.
absl::Status AwaitWelcome(const UniqueFd& socket, int timeout_ms);

/// One byte; never blocks, errors do not matter: a full socket wakes as well.
void RingDoor(const UniqueFd& socket);
/// Takes the bytes that arrived. False if the peer is gone, or speaks out of turn.
bool AnswerDoor(const UniqueFd& socket);

}  // namespace expertmesh::transport

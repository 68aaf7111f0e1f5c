// Client channels with the mesh's keep-alive, limits and quick reconnects, and the settings that
// both ends of a connection must agree on.
#pragma once

#include <grpcpp/channel.h>

#include <memory>
#include <string>

namespace expertmesh::rpc {

/// One message of the mesh at most: a dispatch frame (64 MiB) and its header.
inline constexpr int kMessageBytesMax = (64 << 20) + (1 << 20);
/// Both ends ping an idle connection this often, and close it without an answer. A server takes
/// pings down to kPingIntervalMinMs apart; more often, and it would answer GOAWAY too_many_pings.
inline constexpr int kKeepaliveTimeMs = 20000;
inline constexpr int kKeepaliveTimeoutMs = 10000;
inline constexpr int kPingIntervalMinMs = 10000;
/// What a stream may have on the way, and the size of one HTTP/2 frame. A window of gRPC's own size
/// would be measured with pings beside the data, and topped up with almost every message.
inline constexpr int kStreamWindowBytes = 16 << 20;
inline constexpr int kHttp2FrameBytes = 1 << 20;

/// A channel with a connection of its own ("host:port" or "unix:/path"), insecure: the mesh runs
/// inside one trust domain until mTLS comes. Reconnects after 100 ms, growing to 1 s; never goes
/// through an HTTP proxy. A unary call without a deadline ends with kDeadlineRequired and is not
/// sent. The last reference may be dropped anywhere, also in a reaction.
std::shared_ptr<grpc::Channel> MakeChannel(const std::string& address);

}  // namespace expertmesh::rpc

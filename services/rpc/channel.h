// Client channels with the mesh's keep-alive, limits and quick reconnects.
#pragma once

#include <grpcpp/channel.h>

#include <memory>
#include <string>

namespace expertmesh::rpc {

/// One message of the mesh at most: a dispatch frame and its header.
inline constexpr int kMessageBytesMax = (64 << 20) + (1 << 20);

/// A channel with a connection of its own ("host:port" or "unix:/path"), insecure: the mesh runs inside
/// one trust domain until mTLS comes. Reconnects after 100 ms, doubling to 1 s.
std::shared_ptr<grpc::Channel> MakeChannel(const std::string& address);

}  // namespace expertmesh::rpc

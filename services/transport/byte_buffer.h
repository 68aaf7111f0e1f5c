// grpc::ByteBuffer ↔ frames, without a copy of the payload on the way out.
#pragma once

#include <grpcpp/support/byte_buffer.h>

#include <array>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "services/transport/frame.h"

namespace expertmesh::transport::internal {

/// Keys of the handshake, in the initial metadata of a Dispatch stream.
inline constexpr char kIncarnationKey[] = "x-expertmesh-incarnation";      // of the sender
inline constexpr char kExpectedKey[] = "x-expertmesh-expect-incarnation";  // of the receiver

/// The message for a frame. The payload's memory belongs to the message from now on: it is freed
/// when gRPC has sent the last byte.
template <class Frame>
grpc::ByteBuffer ToByteBuffer(Frame frame) {
  const std::string prefix = MessagePrefix(frame.header.SerializeAsString(), frame.payload.size());
  std::array<grpc::Slice, 2> slices = {grpc::Slice(prefix), grpc::Slice()};
  if (frame.payload.size() == 0) return grpc::ByteBuffer(slices.data(), 1);
  auto* kept = new Buffer(std::move(frame.payload));
  slices[1] = grpc::Slice(
      kept->data(), kept->size(), [](void* p) { delete static_cast<Buffer*>(p); }, kept);
  return grpc::ByteBuffer(slices.data(), 2);
}

/// The frame of a message; Parse is ParseDispatchFrame or ParseCombineFrame.
template <class Parse>
auto FromByteBuffer(const grpc::ByteBuffer& message, Parse parse, BufferPool& pool) {
  std::vector<grpc::Slice> slices;
  message.Dump(&slices);
  std::vector<std::span<const std::byte>> spans;
  spans.reserve(slices.size());
  for (const grpc::Slice& slice : slices) {
    spans.push_back(std::as_bytes(std::span(slice.begin(), slice.size())));
  }
  return parse(Slices(spans), pool);
}

}  // namespace expertmesh::transport::internal

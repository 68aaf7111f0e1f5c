// gRPC's protocol over HTTP/2 for streams of dispatch frames: bytes of a connection in and out, no
// socket, no thread. HTTP/2 itself is nghttp2's. gRPC's own C++ stack takes some 20 µs of processor
// time for a message at each end (docs/benchmarks.md), which is as much as a layer's experts take.
#pragma once

#include <sys/uio.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "services/transport/buffer_pool.h"

struct nghttp2_session;

namespace expertmesh::transport::internal {

/// Header fields, names in lower case.
using Fields = std::multimap<std::string, std::string>;
using FieldList = std::vector<std::pair<std::string, std::string>>;

/// The first field of that name; "" if there is none.
std::string FirstOf(const Fields& fields, const char* name);

/// A message on its way out; freed when its last byte is with the socket.
struct OutMessage {
  std::string prefix;  // the message's bytes before the payload
  Buffer payload;
};

/// One connection. Not thread-safe. The listener is called from Receive and Out, and may call
/// anything but those two.
class GrpcSession {
 public:
  enum class Side { kClient, kServer };

  class Listener {
   public:
    virtual ~Listener() = default;
    /// A call came in (server); the answer has begun (client).
    virtual void OnFields(int32_t stream, const Fields& fields) = 0;
    /// A message of `bytes` begins, which come with OnBytes.
    virtual void OnMessage(int32_t stream, size_t bytes) = 0;
    virtual void OnBytes(int32_t stream, std::span<const std::byte> bytes) = 0;
    /// No more comes from the peer, which still listens (server only).
    virtual void OnHalfClose(int32_t stream) = 0;
    /// The stream is over: the status that the peer sent (client), or what broke it.
    virtual void OnClosed(int32_t stream, const absl::Status& status) = 0;
  };

  GrpcSession(Side side, Listener& listener);
  ~GrpcSession();
  GrpcSession(const GrpcSession&) = delete;
  GrpcSession& operator=(const GrpcSession&) = delete;

  /// An error ends the connection.
  absl::Status Receive(std::span<const std::byte> bytes);

  /// What the peer did that no peer of ours does, once; empty if nothing.
  std::string TakeFault() { return std::exchange(fault_, {}); }
  /// Nothing will be read or written any more: one of the two has said goodbye, or spoke no HTTP/2.
  bool over() const;

  /// Client: begins a call of `path`.
  int32_t Open(const std::string& path, const std::string& authority, const Fields& metadata);
  /// Server: the answer begins.
  void Accept(int32_t stream, const Fields& metadata);
  /// Server: the call ends with that status, after all messages.
  void Finish(int32_t stream, const absl::Status& status);
  /// A message; dropped if the stream is over.
  void Send(int32_t stream, OutMessage message);
  void Ping();
  /// Server: no new streams, please.
  void GoAway();

  /// What is to be written now, in order; empty if nothing is. Valid until the next call of
  /// anything. An error ends the connection.
  absl::StatusOr<std::span<const iovec>> Out();
  /// The first so many bytes of it were written.
  void Sent(size_t bytes);
  /// Memory of what the peer has not taken yet, about.
  size_t backlog() const { return out_bytes_ + outgoing_bytes_; }

 private:
  struct Stream;
  struct Callbacks;
  struct Chunk {
    std::string bytes = {};                       // what it is, if nothing is kept
    std::shared_ptr<const OutMessage> kept = {};  // else a part of this message's payload
    size_t begin = 0;                             // of bytes or payload
    size_t end = 0;
    const std::byte* data() const;
  };

  Stream* Find(int32_t stream);
  void FieldsRead(int32_t id, Stream& stream, bool end);
  void Respond(int32_t id, Stream& stream, const FieldList& more, bool only);
  void TakeData(int32_t id, Stream& stream, std::span<const std::byte> bytes);
  void Break(int32_t id, Stream& stream, absl::Status why);
  void Append(std::span<const std::byte> bytes);

  const Side side_;
  Listener& listener_;
  nghttp2_session* session_ = nullptr;
  std::map<int32_t, std::unique_ptr<Stream>> streams_;
  std::deque<Chunk> out_;
  std::array<iovec, 16> iov_;
  size_t out_bytes_ = 0;  // of out_
  std::string fault_;
  size_t outgoing_bytes_ = 0;  // of messages that are not in out_ yet, and of their keeping
};

}  // namespace expertmesh::transport::internal

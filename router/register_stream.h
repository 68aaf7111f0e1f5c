// One Register stream on the router's side: messages in, the newest view out.
#pragma once

#include <grpcpp/support/server_callback.h>

#include <memory>
#include <mutex>
#include <string>

#include "expertmesh/router/v1/router.pb.h"

namespace expertmesh::router {

/// A view ready to be sent, shared by the streams that send it.
using SharedView = std::shared_ptr<const v1::RegisterResponse>;

/// Thread-safe. Kept alive by its owner and by gRPC; after End() or the first OnEnd the stream does
/// nothing any more.
class RegisterStream : public std::enable_shared_from_this<RegisterStream> {
 public:
  /// The one who is told. Called on gRPC threads, without a lock held.
  class Owner {
   public:
    virtual void OnMessage(RegisterStream& stream, const v1::RegisterRequest& message) = 0;
    /// Once per stream, at its end, whoever ended it.
    virtual void OnEnd(uint64_t stream, const std::string& why) = 0;

   protected:
    ~Owner() = default;
  };
  using Reactor = grpc::ServerBidiReactor<v1::RegisterRequest, v1::RegisterResponse>;

  RegisterStream(Owner& owner, uint64_t id) : owner_(owner), id_(id) {}

  /// The reactor for gRPC; reading begins at once. Call it once.
  Reactor* Begin();
  uint64_t id() const { return id_; }
  /// Sends the view, or the newest one when the write in progress is done: at most one waits.
  void Send(const SharedView& view);
  void End(const grpc::Status& status, const std::string& why);

 private:
  struct GrpcReactor;
  void PumpLocked();
  void Written(bool ok);
  void Received(bool ok);

  Owner& owner_;
  const uint64_t id_;
  std::mutex mutex_;
  GrpcReactor* reactor_ = nullptr;  // guarded by mutex_; null before Begin and after OnDone
  bool ended_ = false;              // guarded by mutex_
  SharedView writing_;              // guarded by mutex_; what gRPC sends now
  SharedView pending_;              // guarded by mutex_
};

}  // namespace expertmesh::router

// A member's side of router.v1.Register: one stream per router, redialled for ever, a report at once when
// something changes and every 500 ms otherwise (docs/protocol.md §3).
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "expertmesh/router/v1/router.pb.h"

namespace expertmesh::rpc {

/// Thread-safe. Callbacks run on gRPC threads, views of one router in order, and must not call Stop.
class RouterClient {
 public:
  using OnView = std::function<void(const router::v1::View& view)>;
  /// A router came up or went down.
  using OnRouter =
      std::function<void(const std::string& address, bool up, const std::string& reason)>;

  RouterClient(std::vector<std::string> addresses, router::v1::Hello hello, OnView on_view,
               OnRouter on_router);
  ~RouterClient();
  RouterClient(const RouterClient&) = delete;
  RouterClient& operator=(const RouterClient&) = delete;

  /// What every router hears from now on; sent at once if it differs from the last.
  void Report(const router::v1::Report& report);
  /// Ends the streams and waits for the last callback. Idempotent.
  void Stop();

 private:
  class Link;
  std::vector<std::shared_ptr<Link>> links_;
};

}  // namespace expertmesh::rpc

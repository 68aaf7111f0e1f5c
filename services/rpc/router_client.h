// A member's side of router.v1.Register: one stream per router, redialled for ever, a report at
// once when readiness changes and every 500 ms otherwise (docs/protocol.md §3).
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "expertmesh/router/v1/router.pb.h"

namespace expertmesh::rpc {

class RouterLink;
class ViewChooser;
struct RouterBells;

/// Thread-safe. Owns two threads: one dials and reports, the other runs all callbacks, so that a
/// slow callback delays no report. Callbacks may call Report, never Stop or the destructor.
class RouterClient {
 public:
  /// The view to follow has changed: of several routers the one with the newest placement epoch,
  /// the last among equals. When a router breaks away, its view stays in force until another comes.
  using OnView = std::function<void(const router::v1::View& view)>;
  /// A router came up (it sent a view) or went down; down again only with another reason.
  using OnRouter =
      std::function<void(const std::string& address, bool up, const std::string& reason)>;

  /// Each Hello is `hello` with last_epoch set to the newest epoch seen. Reports not ready,
  /// "starting", until the first Report. Either callback may be empty; they may run before the
  /// constructor has returned.
  RouterClient(std::vector<std::string> addresses, router::v1::Hello hello, OnView on_view,
               OnRouter on_router);
  ~RouterClient();
  RouterClient(const RouterClient&) = delete;
  RouterClient& operator=(const RouterClient&) = delete;

  /// What every router hears from now on: at once if readiness, draining or the reason differ,
  /// within 50 ms if only the figures do, and every 500 ms after.
  void Report(const router::v1::Report& report);
  /// Ends the streams, waits for a callback that runs, and joins the threads; no callback comes
  /// after it. Idempotent.
  void Stop();

 private:
  void TimerLoop();
  void EventLoop();
  void Deliver(size_t router);

  const OnView on_view_;
  const OnRouter on_router_;
  std::vector<std::shared_ptr<RouterLink>> links_;  // [router]
  std::shared_ptr<RouterBells> bells_;
  std::atomic<bool> stopping_ = false;
  std::once_flag stopped_;
  // Of the event thread alone.
  struct Seen {
    bool known = false;
    bool up = false;
    std::string reason = {};
  };
  std::vector<Seen> seen_;  // [router]
  std::unique_ptr<ViewChooser> chooser_;
  std::thread timer_;
  std::thread events_;
};

}  // namespace expertmesh::rpc

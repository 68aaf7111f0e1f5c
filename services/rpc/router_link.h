// One Register stream to one router. The timer thread of RouterClient drives it with Step; gRPC's
// reactions only note what happened and ring the bells.
#pragma once

#include <chrono>
#include <deque>
#include <memory>
#include <mutex>
#include <optional>
#include <string>

#include "expertmesh/router/v1/router.grpc.pb.h"
#include "services/rpc/wakeup.h"

namespace expertmesh::rpc {

struct RouterBells {
  Wakeup timer;   // RouterLink::Step has work
  Wakeup events;  // RouterLink::TakeEvents has some
};

/// Thread-safe. Shared with gRPC's reactors, which may end after the client let go of it.
class RouterLink : public std::enable_shared_from_this<RouterLink> {
 public:
  using Moment = std::chrono::steady_clock::time_point;
  /// A view came, or the stream ended for a reason.
  struct Event {
    std::optional<router::v1::View> view;
    std::string reason = {};
  };

  RouterLink(std::string address, const router::v1::Hello& hello,
             std::shared_ptr<RouterBells> bells);

  const std::string& address() const { return address_; }
  /// Dials, greets, reports and gives up when it is time to; returns when to be called again.
  Moment Step(Moment now);
  /// A change of readiness is due at once, one of the figures within 50 ms. Ring the timer bell
  /// after it.
  void SetReport(const router::v1::Report& report);
  /// Sent with the next Hello.
  void SetLastEpoch(const common::v1::Epoch& epoch);
  /// Since the last call, in order. A member that lags gets only the newest of views in a row.
  std::deque<Event> TakeEvents();
  /// Ends the stream and dials no more; rings the timer bell when idle() turns true.
  void Cancel();
  bool idle() const;

 private:
  struct Reactor;

  void Dial(Moment now);
  void Write();
  void Received(Reactor& reactor, bool ok);
  void Written(bool ok);
  void Ended(const grpc::Status& status);
  void Push(Event event);

  const std::string address_;
  const std::shared_ptr<RouterBells> bells_;
  const std::shared_ptr<grpc::Channel> channel_;
  const std::unique_ptr<router::v1::RouterService::Stub> stub_;

  mutable std::mutex mutex_;  // guards all below
  router::v1::RegisterRequest hello_;
  router::v1::RegisterRequest report_;
  std::deque<Event> events_;
  Reactor* reactor_ = nullptr;  // null between two dials
  bool greeted_ = false;        // the Hello of this stream is out
  bool writing_ = false;        // gRPC aborts on a second write before the first is done
  bool closing_ = false;        // no more writes on this stream
  bool viewed_ = false;         // a view came on this stream
  bool refused_ = false;        // the last stream ended before its first view
  bool cancelled_ = false;      // Cancel was called
  std::string give_up_reason_;
  std::chrono::milliseconds redial_after_;
  Moment dial_at_ = Moment::min();
  Moment give_up_at_ = Moment::max();
  Moment report_at_ = Moment::min();
  Moment reported_at_ = Moment::min();
};

}  // namespace expertmesh::rpc

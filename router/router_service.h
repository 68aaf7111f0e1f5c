// router.v1 over gRPC: feeds the streams into core/ and sends every member the newest view.
#pragma once

#include <condition_variable>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "expertmesh/router/v1/router.grpc.pb.h"
#include "router/core/membership.h"
#include "router/core/placement.h"
#include "router/register_stream.h"
#include "services/base/clock.h"

namespace expertmesh::router {

/// Thread-safe. One mutex owns the state machines; a timer thread ticks them every 100 ms. Destroy
/// it after its server has shut down.
class RouterService final : public v1::RouterService::CallbackService,
                            private RegisterStream::Owner {
 public:
  /// A view, who is left out of the placement and why, and who came and went since the last one.
  struct Change {
    v1::View view;
    std::vector<LeftOut> left_out;
    std::vector<Departure> departed;
    std::vector<Departure> forgotten;
  };
  /// Called after every change, on any thread, one at a time and in order; must not call back.
  using OnChange = std::function<void(const Change&)>;

  RouterService(uint64_t incarnation, const base::Clock& clock, OnChange on_change);
  ~RouterService() override;

  RegisterStream::Reactor* Register(grpc::CallbackServerContext* context) override;
  grpc::ServerUnaryReactor* GetView(grpc::CallbackServerContext* context,
                                    const v1::GetViewRequest* request,
                                    v1::GetViewResponse* response) override;
  grpc::ServerUnaryReactor* Route(grpc::CallbackServerContext* context,
                                  const v1::RouteRequest* request,
                                  v1::RouteResponse* response) override;

 private:
  struct Closing {
    std::shared_ptr<RegisterStream> stream;
    absl::Status why;
  };
  void OnMessage(RegisterStream& stream, const v1::RegisterRequest& message) override;
  void OnEnd(uint64_t stream, const std::string& why) override;
  void TickLoop();
  MembershipChange MessageLocked(uint64_t stream, const v1::RegisterRequest& message);
  std::vector<Closing> ApplyLocked(MembershipChange change);
  v1::View ViewLocked() const;
  absl::Status RouteLocked(const v1::RouteRequest& request, v1::RouteResponse& response);

  const uint64_t incarnation_;
  const base::Clock& clock_;
  const OnChange on_change_;
  mutable std::mutex mutex_;
  std::condition_variable wake_;
  bool stop_ = false;                                            // guarded by mutex_
  Membership membership_;                                        // guarded by mutex_
  Placement placement_;                                          // guarded by mutex_
  std::map<uint64_t, std::shared_ptr<RegisterStream>> streams_;  // guarded by mutex_
  uint64_t next_stream_ = 1;                                     // guarded by mutex_
  uint64_t sequence_ = 0;                                        // guarded by mutex_
  std::thread timer_;
};

}  // namespace expertmesh::router

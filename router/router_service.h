// router.v1 over gRPC: feeds the streams into core/ and sends every member the newest view.
#pragma once

#include <condition_variable>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>

#include "expertmesh/router/v1/router.grpc.pb.h"
#include "router/core/membership.h"
#include "router/core/placement.h"
#include "services/base/clock.h"

namespace expertmesh::router {

class RegisterStream;

/// Thread-safe. One mutex owns the state machines; a timer thread ticks them every 100 ms.
class RouterService final : public v1::RouterService::CallbackService {
 public:
  /// Called after every change, on any thread, in order: the view, and who left.
  using OnChange = std::function<void(const v1::View& view, const std::vector<Departure>& departed)>;
  RouterService(uint64_t incarnation, const base::Clock& clock, OnChange on_change);
  ~RouterService() override;

  grpc::ServerBidiReactor<v1::RegisterRequest, v1::RegisterResponse>* Register(
      grpc::CallbackServerContext* context) override;
  grpc::ServerUnaryReactor* GetView(grpc::CallbackServerContext* context,
                                    const v1::GetViewRequest* request,
                                    v1::GetViewResponse* response) override;
  grpc::ServerUnaryReactor* Route(grpc::CallbackServerContext* context,
                                  const v1::RouteRequest* request,
                                  v1::RouteResponse* response) override;

  v1::View view() const;
  /// Why workers are left out of the placement; empty if none are.
  std::string mismatch() const;

 private:
  friend class RegisterStream;
  void OnMessage(const std::shared_ptr<RegisterStream>& stream, const v1::RegisterRequest& message);
  void OnEnd(uint64_t stream, const std::string& why);
  void TickLoop();
  void ApplyLocked(const MembershipChange& change);
  v1::View BuildViewLocked() const;

  const uint64_t incarnation_;
  const base::Clock& clock_;
  const OnChange on_change_;
  mutable std::mutex mutex_;
  std::condition_variable wake_;
  bool stop_ = false;                                             // guarded by mutex_
  Membership membership_;                                         // guarded by mutex_
  Placement placement_;                                           // guarded by mutex_
  std::map<uint64_t, std::shared_ptr<RegisterStream>> streams_;   // guarded by mutex_
  uint64_t next_stream_ = 1;                                      // guarded by mutex_
  uint64_t sequence_ = 0;                                         // guarded by mutex_
  v1::View view_;                                                 // guarded by mutex_
  std::thread timer_;
};

}  // namespace expertmesh::router

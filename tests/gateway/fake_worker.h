// An attention worker for tests: inference.v1 on a real socket, answers by a script.
#pragma once

#include <chrono>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "expertmesh/inference/v1/inference.grpc.pb.h"
#include "services/rpc/server.h"

namespace expertmesh::gateway {

/// What the worker says to one request.
struct Script {
  std::vector<inference::v1::GenerateResponse> events = {};
  bool hang = false;       // after the events: nothing, until cancelled or Release
  absl::Status end = {};   // after the events
  size_t repeat_last = 0;  // the last event is sent so many times more
};

inference::v1::GenerateResponse StartedEvent(uint32_t prompt_tokens, uint32_t cached = 0);
inference::v1::GenerateResponse TokenEvent(uint32_t id);
inference::v1::GenerateResponse FinishedEvent(inference::v1::FinishReason reason);
/// Started, the tokens, Finished.
Script Says(const std::vector<uint32_t>& ids,
            inference::v1::FinishReason reason = inference::v1::FINISH_REASON_STOP);

/// Thread-safe.
class FakeWorker final : public inference::v1::InferenceService::CallbackService {
 public:
  FakeWorker();
  ~FakeWorker() override;

  const std::string& address() const { return address_; }
  /// Of all requests from now on.
  void Follow(Script script);
  /// Lets the calls that hang come to their end.
  void Release();
  /// The process dies: calls in flight break, the address answers no more.
  void Die();

  /// Waits for what the test expects; false after half a minute.
  bool WaitForCancelled(int calls);
  bool WaitForRequests(int calls);
  inference::v1::GenerateRequest last_request();
  /// Metadata of the last request; "" if absent.
  std::string last_metadata(const std::string& key);

  grpc::ServerWriteReactor<inference::v1::GenerateResponse>* Generate(
      grpc::CallbackServerContext* context, const inference::v1::GenerateRequest* request) override;

 private:
  class Stream;
  bool Wait(const int& counter, int calls);

  std::mutex mutex_;
  std::condition_variable changed_;
  Script script_;                                                   // guarded by mutex_
  int requests_ = 0;                                                // guarded by mutex_
  int cancelled_ = 0;                                               // guarded by mutex_
  inference::v1::GenerateRequest last_request_;                     // guarded by mutex_
  std::vector<std::pair<std::string, std::string>> last_metadata_;  // guarded by mutex_
  std::set<Stream*> streams_;                                       // guarded by mutex_
  std::unique_ptr<rpc::Server> server_;
  std::string address_;
};

}  // namespace expertmesh::gateway

// A router.v1 server that does what the test says, over a real socket.
#pragma once

#include <gtest/gtest.h>

#include <chrono>
#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "expertmesh/router/v1/router.grpc.pb.h"
#include "services/rpc/server.h"

namespace expertmesh::rpc {

/// Long enough for a busy machine: a wait ends as soon as its condition holds.
inline constexpr std::chrono::seconds kWait(60);

class FakeRouter final : public router::v1::RouterService::Service {
 public:
  using Stream =
      grpc::ServerReaderWriter<router::v1::RegisterResponse, router::v1::RegisterRequest>;

  ~FakeRouter() override { Stop(); }

  void Start(const std::string& address) {
    auto server = Server::Start({address, nullptr}, {this});
    ASSERT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
  }
  /// As if the process died: the streams break.
  void Stop() { server_.reset(); }

  /// What a new stream gets after its Hello; nothing: it gets no view.
  void Greet(std::optional<router::v1::View> view) {
    std::lock_guard lock(mutex_);
    greeting_ = std::move(view);
  }
  /// Ends every new stream after its Hello.
  void Refuse(const grpc::Status& status) {
    std::lock_guard lock(mutex_);
    refusal_ = status;
  }
  void Send(const router::v1::View& view) {
    std::lock_guard lock(mutex_);
    for (Stream* stream : streams_) Write(*stream, view);
  }
  /// The hellos so far, as soon as there are `count`.
  std::vector<router::v1::Hello> Hellos(size_t count) {
    std::unique_lock lock(mutex_);
    EXPECT_TRUE(changed_.wait_for(lock, kWait, [&] { return hellos_.size() >= count; }));
    return hellos_;
  }
  /// Waits until a report that came after `skip` others suits.
  bool SawReport(size_t skip, const std::function<bool(const router::v1::Report&)>& suits) {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, kWait, [&] {
      for (size_t i = skip; i < reports_.size(); ++i) {
        if (suits(reports_[i])) return true;
      }
      return false;
    });
  }
  size_t report_count() {
    std::lock_guard lock(mutex_);
    return reports_.size();
  }

 private:
  static void Write(Stream& stream, const router::v1::View& view) {
    router::v1::RegisterResponse response;
    *response.mutable_view() = view;
    stream.Write(response);
  }

  grpc::Status Register(grpc::ServerContext* /*context*/, Stream* stream) override {
    router::v1::RegisterRequest request;
    while (stream->Read(&request)) {
      std::lock_guard lock(mutex_);
      if (request.has_hello()) {
        hellos_.push_back(request.hello());
        changed_.notify_all();
        if (!refusal_.ok()) return refusal_;
        streams_.insert(stream);
        if (greeting_) Write(*stream, *greeting_);
      } else if (request.has_report()) {
        reports_.push_back(request.report());
        changed_.notify_all();
      }
    }
    std::lock_guard lock(mutex_);
    streams_.erase(stream);
    return grpc::Status::OK;
  }

  std::unique_ptr<Server> server_;
  std::mutex mutex_;  // guards all below
  std::condition_variable changed_;
  std::optional<router::v1::View> greeting_ = router::v1::View();
  grpc::Status refusal_;
  std::set<Stream*> streams_;
  std::vector<router::v1::Hello> hellos_;
  std::vector<router::v1::Report> reports_;
};

inline router::v1::View MakeView(uint64_t sequence, uint64_t term = 0, uint64_t number = 0) {
  router::v1::View view;
  view.set_sequence(sequence);
  if (term == 0) return view;
  view.mutable_placement()->mutable_epoch()->set_term(term);
  view.mutable_placement()->mutable_epoch()->set_number(number);
  return view;
}

inline router::v1::Hello MakeHello() {
  router::v1::Hello hello;
  hello.set_name("expert-1");
  hello.set_incarnation(42);
  return hello;
}

inline router::v1::Report MakeReport(bool ready, uint64_t load = 0) {
  router::v1::Report report;
  report.set_ready(ready);
  report.set_load(load);
  return report;
}

}  // namespace expertmesh::rpc

// A member that speaks router.v1 by hand, so that a test decides when it is silent, slow or wrong.
#pragma once

#include <grpcpp/client_context.h>
#include <grpcpp/create_channel.h>

#include <chrono>
#include <functional>
#include <memory>
#include <string>

#include "expertmesh/router/v1/router.grpc.pb.h"
#include "services/rpc/status.h"

namespace expertmesh::router {

inline v1::Hello MakeHello(common::v1::Role role, const std::string& name,
                           uint64_t incarnation = 1) {
  v1::Hello hello;
  hello.set_role(role);
  hello.set_name(name);
  hello.set_incarnation(incarnation);
  hello.set_address(name + ":7000");
  hello.mutable_model()->set_model("tiny");
  hello.mutable_model()->set_revision("rev-a");
  hello.set_profile("bf16");
  hello.set_expert_count(32);
  return hello;
}

/// Hosts [begin, end) of 32 experts.
inline v1::Hello ExpertHello(const std::string& name, uint32_t begin, uint32_t end) {
  v1::Hello hello = MakeHello(common::v1::ROLE_EXPERT_WORKER, name);
  auto* range = hello.add_experts();
  range->set_begin(begin);
  range->set_end(end);
  return hello;
}

inline v1::Hello AttentionHello(const std::string& name, uint64_t incarnation = 1) {
  return MakeHello(common::v1::ROLE_ATTENTION_WORKER, name, incarnation);
}

/// One stream; every wait ends after 20 s at the latest, with an error.
class TestMember {
 public:
  explicit TestMember(const std::string& address)
      : stub_(v1::RouterService::NewStub(
            grpc::CreateChannel(address, grpc::InsecureChannelCredentials()))) {
    context_.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(20));
    stream_ = stub_->Register(&context_);
  }
  /// Says Hello and reports ready.
  TestMember(const std::string& address, const v1::Hello& hello) : TestMember(address) {
    Say(hello);
    Report(true);
  }

  void Say(const v1::Hello& hello) {
    v1::RegisterRequest request;
    *request.mutable_hello() = hello;
    stream_->Write(request);
  }
  void Report(bool ready, uint64_t load = 0) {
    v1::RegisterRequest request;
    request.mutable_report()->set_ready(ready);
    request.mutable_report()->set_load(load);
    stream_->Write(request);
  }
  void SayNothing() { stream_->Write({}); }

  /// Reads views until one fits; an empty view if the stream ends first.
  v1::View ViewWith(const std::function<bool(const v1::View&)>& fits) {
    v1::RegisterResponse response;
    while (stream_->Read(&response)) {
      ++views_read_;
      if (fits(response.view())) return response.view();
    }
    return {};
  }
  v1::View NextView() {
    return ViewWith([](const v1::View&) { return true; });
  }
  int views_read() const { return views_read_; }

  /// Breaks the connection.
  void Break() { context_.TryCancel(); }
  /// Waits for the end of the stream.
  absl::Status End() {
    v1::RegisterResponse response;
    while (stream_->Read(&response)) {
    }
    return rpc::FromGrpcStatus(stream_->Finish());
  }

 private:
  std::unique_ptr<v1::RouterService::Stub> stub_;
  grpc::ClientContext context_;
  std::unique_ptr<grpc::ClientReaderWriter<v1::RegisterRequest, v1::RegisterResponse>> stream_;
  int views_read_ = 0;
};

}  // namespace expertmesh::router

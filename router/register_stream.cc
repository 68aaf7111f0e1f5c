#include "router/register_stream.h"

#include <utility>

namespace expertmesh::router {

// Deletes itself at OnDone, as gRPC wants it.
struct RegisterStream::GrpcReactor final : Reactor {
  explicit GrpcReactor(std::shared_ptr<RegisterStream> s) : stream(std::move(s)) {}
  void OnReadDone(bool ok) override { stream->Received(ok); }
  void OnWriteDone(bool ok) override { stream->Written(ok); }
  void OnCancel() override {
    stream->End(grpc::Status::CANCELLED, "its connection to the router ended");
  }
  void OnDone() override {
    {
      std::lock_guard lock(stream->mutex_);
      stream->reactor_ = nullptr;
    }
    delete this;
  }

  const std::shared_ptr<RegisterStream> stream;
  v1::RegisterRequest in;
};

RegisterStream::Reactor* RegisterStream::Begin() {
  auto* reactor = new GrpcReactor(shared_from_this());
  std::lock_guard lock(mutex_);
  reactor_ = reactor;
  reactor->StartRead(&reactor->in);
  return reactor;
}

void RegisterStream::Send(const SharedView& view) {
  std::lock_guard lock(mutex_);
  pending_ = view;
  PumpLocked();
}

// A second StartWrite before OnWriteDone aborts the process: the newest view waits here.
void RegisterStream::PumpLocked() {
  if (reactor_ == nullptr || ended_ || writing_ != nullptr || pending_ == nullptr) return;
  writing_ = std::exchange(pending_, nullptr);
  reactor_->StartWrite(writing_.get());
}

void RegisterStream::Written(bool ok) {
  std::lock_guard lock(mutex_);
  writing_.reset();
  if (ok) PumpLocked();
}

void RegisterStream::Received(bool ok) {
  if (!ok) {
    End(grpc::Status::OK, "it closed its stream");
    return;
  }
  GrpcReactor* reactor = nullptr;
  {
    std::lock_guard lock(mutex_);
    reactor = reactor_;  // alive: OnDone comes after this reaction
  }
  owner_.OnMessage(*this, reactor->in);
  std::lock_guard lock(mutex_);
  if (!ended_) reactor->StartRead(&reactor->in);
}

void RegisterStream::End(const grpc::Status& status, const std::string& why) {
  {
    std::lock_guard lock(mutex_);
    if (ended_ || reactor_ == nullptr) return;
    ended_ = true;
    pending_.reset();
    reactor_->Finish(status);
  }
  owner_.OnEnd(id_, why);
}

}  // namespace expertmesh::router

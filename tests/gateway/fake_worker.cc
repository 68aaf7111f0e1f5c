#include "tests/gateway/fake_worker.h"

#include <gtest/gtest.h>

#include "services/rpc/status.h"

namespace expertmesh::gateway {

using inference::v1::GenerateRequest;
using inference::v1::GenerateResponse;

namespace {
constexpr auto kPatience = std::chrono::seconds(30);
}

GenerateResponse StartedEvent(uint32_t prompt_tokens, uint32_t cached) {
  GenerateResponse event;
  event.mutable_started()->set_prompt_tokens(prompt_tokens);
  event.mutable_started()->set_cached_prompt_tokens(cached);
  return event;
}

GenerateResponse TokenEvent(uint32_t id) {
  GenerateResponse event;
  event.mutable_token()->set_id(id);
  return event;
}

GenerateResponse FinishedEvent(inference::v1::FinishReason reason) {
  GenerateResponse event;
  event.mutable_finished()->set_reason(reason);
  return event;
}

Script Says(const std::vector<uint32_t>& ids, inference::v1::FinishReason reason) {
  Script script;
  script.events.push_back(StartedEvent(9, 4));
  for (const uint32_t id : ids) script.events.push_back(TokenEvent(id));
  script.events.push_back(FinishedEvent(reason));
  return script;
}

// One call; deletes itself in OnDone.
class FakeWorker::Stream final : public grpc::ServerWriteReactor<GenerateResponse> {
 public:
  Stream(FakeWorker& worker, Script script) : worker_(worker), script_(std::move(script)) {
    std::lock_guard lock(mutex_);
    Step();
  }

  void OnWriteDone(bool ok) override {
    std::lock_guard lock(mutex_);
    writing_ = false;
    broken_ = broken_ || !ok;
    Step();
  }
  void OnCancel() override {
    {
      std::lock_guard lock(mutex_);
      broken_ = true;
      Step();
    }
    std::lock_guard lock(worker_.mutex_);
    ++worker_.cancelled_;
    worker_.changed_.notify_all();
  }
  void OnDone() override {
    {
      std::lock_guard lock(worker_.mutex_);
      worker_.streams_.erase(this);
    }
    delete this;
  }
  void Release() {
    std::lock_guard lock(mutex_);
    script_.hang = false;
    Step();
  }

 private:
  void Step() {
    if (writing_ || finished_) return;
    if (broken_) return End(grpc::Status::CANCELLED);
    if (next_ < script_.events.size()) {
      writing_ = true;
      const GenerateResponse& event = script_.events[next_];
      const bool last = next_ + 1 == script_.events.size();
      if (last && script_.repeat_last > 0) {
        --script_.repeat_last;
      } else {
        ++next_;
      }
      return StartWrite(&event);
    }
    if (!script_.hang) End(rpc::ToGrpcStatus(script_.end));
  }
  void End(const grpc::Status& status) {
    finished_ = true;
    Finish(status);
  }

  FakeWorker& worker_;
  std::mutex mutex_;
  Script script_;          // guarded by mutex_
  size_t next_ = 0;        // guarded by mutex_
  bool writing_ = false;   // guarded by mutex_
  bool broken_ = false;    // guarded by mutex_
  bool finished_ = false;  // guarded by mutex_
};

FakeWorker::FakeWorker() {
  auto server = rpc::Server::Start({}, {this});
  EXPECT_TRUE(server.ok()) << server.status();
  server_ = *std::move(server);
  address_ = server_->address();
}

FakeWorker::~FakeWorker() { Die(); }

void FakeWorker::Follow(Script script) {
  std::lock_guard lock(mutex_);
  script_ = std::move(script);
}

void FakeWorker::Release() {
  std::lock_guard lock(mutex_);
  for (Stream* stream : streams_) stream->Release();
}

void FakeWorker::Die() {
  if (server_) server_->Shutdown(std::chrono::milliseconds(0));
}

bool FakeWorker::Wait(const int& counter, int calls) {
  std::unique_lock lock(mutex_);
  return changed_.wait_for(lock, kPatience, [&] { return counter >= calls; });
}
bool FakeWorker::WaitForCancelled(int calls) { return Wait(cancelled_, calls); }
bool FakeWorker::WaitForRequests(int calls) { return Wait(requests_, calls); }

GenerateRequest FakeWorker::last_request() {
  std::lock_guard lock(mutex_);
  return last_request_;
}

std::string FakeWorker::last_metadata(const std::string& key) {
  std::lock_guard lock(mutex_);
  for (const auto& [name, value] : last_metadata_) {
    if (name == key) return value;
  }
  return "";
}

grpc::ServerWriteReactor<GenerateResponse>* FakeWorker::Generate(
    grpc::CallbackServerContext* context, const GenerateRequest* request) {
  std::lock_guard lock(mutex_);
  ++requests_;
  last_request_ = *request;
  last_metadata_.clear();
  for (const auto& [key, value] : context->client_metadata()) {
    last_metadata_.emplace_back(std::string(key.data(), key.size()),
                                std::string(value.data(), value.size()));
  }
  changed_.notify_all();
  auto* stream = new Stream(*this, script_);
  streams_.insert(stream);
  return stream;
}

}  // namespace expertmesh::gateway

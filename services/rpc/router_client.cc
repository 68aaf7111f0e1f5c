#include "services/rpc/router_client.h"

#include <google/protobuf/util/message_differencer.h>
#include <grpcpp/alarm.h>

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <utility>

#include "expertmesh/router/v1/router.grpc.pb.h"
#include "services/base/status.h"
#include "services/rpc/channel.h"
#include "services/rpc/status.h"

namespace expertmesh::rpc {
namespace {

constexpr auto kReportEvery = std::chrono::milliseconds(500);
constexpr auto kRedialFirst = std::chrono::milliseconds(100);
constexpr auto kRedialMax = std::chrono::milliseconds(1000);

using router::v1::RegisterRequest;
using router::v1::RegisterResponse;

}  // namespace

// One router. A single alarm serves both as report timer and as redial timer.
class RouterClient::Link : public std::enable_shared_from_this<Link> {
 public:
  Link(std::string address, const router::v1::Hello& hello, OnView on_view, OnRouter on_router)
      : address_(std::move(address)),
        on_view_(std::move(on_view)),
        on_router_(std::move(on_router)),
        stub_(router::v1::RouterService::NewStub(MakeChannel(address_))) {
    *hello_.mutable_hello() = hello;
  }

  void Start() {
    std::lock_guard lock(mutex_);
    DialLocked();
  }

  void Report(const router::v1::Report& report) {
    std::lock_guard lock(mutex_);
    if (google::protobuf::util::MessageDifferencer::Equals(report_.report(), report)) return;
    *report_.mutable_report() = report;
    report_due_ = true;
    WriteLocked();
  }

  void Stop() {
    std::unique_lock lock(mutex_);
    stopped_ = true;
    if (reactor_ != nullptr) reactor_->context.TryCancel();
    alarm_.Cancel();
    idle_.wait(lock, [&] { return reactor_ == nullptr && !alarm_set_; });
  }

 private:
  // Lives from dial to OnDone; deletes itself.
  struct Reactor final : grpc::ClientBidiReactor<RegisterRequest, RegisterResponse> {
    explicit Reactor(std::shared_ptr<Link> l) : link(std::move(l)) {}
    void OnReadDone(bool ok) override { link->Received(*this, ok); }
    void OnWriteDone(bool ok) override { link->Written(ok); }
    void OnDone(const grpc::Status& status) override {
      const auto keep = std::move(link);
      keep->Ended(status);
      delete this;
    }
    std::shared_ptr<Link> link;
    grpc::ClientContext context;
    RegisterResponse view;
    RegisterRequest out;
  };

  void DialLocked() {
    if (stopped_) return;
    auto* reactor = new Reactor(shared_from_this());
    reactor_ = reactor;
    greeted_ = false;
    report_due_ = true;
    stub_->async()->Register(&reactor->context, reactor);
    reactor->AddHold();  // writes start outside of reactions; released when the read side ends
    reactor->StartRead(&reactor->view);
    reactor->StartCall();
    WriteLocked();
    ArmLocked(kReportEvery);
  }

  void WriteLocked() {
    if (reactor_ == nullptr || writing_ || closing_ || !report_due_) return;
    reactor_->out = greeted_ ? report_ : hello_;
    if (greeted_) report_due_ = false;
    greeted_ = true;
    writing_ = true;
    reactor_->StartWrite(&reactor_->out);
  }

  void Written(bool ok) {
    std::lock_guard lock(mutex_);
    writing_ = false;
    if (ok) WriteLocked();
  }

  void Received(Reactor& reactor, bool ok) {
    if (!ok) {
      {
        std::lock_guard lock(mutex_);
        closing_ = true;
      }
      reactor.context.TryCancel();
      reactor.RemoveHold();
      return;
    }
    bool came_up = false;
    {
      std::lock_guard lock(mutex_);
      if (stopped_) return reactor.StartRead(&reactor.view);
      came_up = !up_;
      up_ = true;
      redial_after_ = kRedialFirst;
    }
    if (came_up) on_router_(address_, true, "");
    on_view_(reactor.view.view());
    reactor.StartRead(&reactor.view);
  }

  void Ended(const grpc::Status& status) {
    {
      std::lock_guard lock(mutex_);
      up_ = false;
    }
    on_router_(address_, false, status.ok() ? "the router closed the stream" : status.error_message());
    std::lock_guard lock(mutex_);
    reactor_ = nullptr;
    writing_ = false;
    closing_ = false;
    if (!stopped_) {
      // A report timer may still be set: it then serves as the redial timer.
      if (!alarm_set_) {
        ArmLocked(redial_after_);
      } else {
        alarm_.Cancel();
      }
      redial_after_ = std::min(redial_after_ * 2, kRedialMax);
    }
    idle_.notify_all();
  }

  void ArmLocked(std::chrono::milliseconds after) {
    if (alarm_set_ || stopped_) return;
    alarm_set_ = true;
    alarm_.Set(std::chrono::system_clock::now() + after,
               [weak = weak_from_this()](bool fired) {
                 if (const auto self = weak.lock()) self->OnAlarm(fired);
               });
  }

  void OnAlarm(bool fired) {
    std::lock_guard lock(mutex_);
    alarm_set_ = false;
    if (stopped_) {
      idle_.notify_all();
    } else if (reactor_ != nullptr) {
      report_due_ = true;
      WriteLocked();
      ArmLocked(kReportEvery);
    } else if (fired) {
      DialLocked();
    } else {
      ArmLocked(redial_after_);  // the stream ended while the report timer ran
    }
  }

  const std::string address_;
  const OnView on_view_;
  const OnRouter on_router_;
  const std::unique_ptr<router::v1::RouterService::Stub> stub_;
  RegisterRequest hello_;
  std::mutex mutex_;
  std::condition_variable idle_;
  grpc::Alarm alarm_;                               // guarded by mutex_
  bool alarm_set_ = false;                          // guarded by mutex_
  Reactor* reactor_ = nullptr;                      // guarded by mutex_
  RegisterRequest report_;                          // guarded by mutex_
  bool report_due_ = false;                         // guarded by mutex_
  bool greeted_ = false;                            // guarded by mutex_: the Hello is out
  bool writing_ = false;                            // guarded by mutex_
  bool closing_ = false;                            // guarded by mutex_: no more writes
  bool up_ = false;                                 // guarded by mutex_
  bool stopped_ = false;                            // guarded by mutex_
  std::chrono::milliseconds redial_after_ = kRedialFirst;  // guarded by mutex_
};

RouterClient::RouterClient(std::vector<std::string> addresses, router::v1::Hello hello,
                           OnView on_view, OnRouter on_router) {
  for (std::string& address : addresses) {
    links_.push_back(std::make_shared<Link>(std::move(address), hello, on_view, on_router));
  }
  for (const auto& link : links_) link->Start();
}

RouterClient::~RouterClient() { Stop(); }

void RouterClient::Report(const router::v1::Report& report) {
  for (const auto& link : links_) link->Report(report);
}

void RouterClient::Stop() {
  for (const auto& link : links_) link->Stop();
  links_.clear();
}

}  // namespace expertmesh::rpc

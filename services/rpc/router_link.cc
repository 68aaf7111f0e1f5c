#include "services/rpc/router_link.h"

#include <grpcpp/client_context.h>

#include <algorithm>
#include <utility>

#include "services/rpc/channel.h"

namespace expertmesh::rpc {
namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

constexpr auto kReportEvery = milliseconds(500);
constexpr auto kReportFigures = milliseconds(50);
constexpr auto kRedialFirst = milliseconds(100);
constexpr auto kRedialMax = milliseconds(1000);
constexpr auto kFirstViewWithin = milliseconds(5000);
constexpr size_t kEventsMax = 4;

using router::v1::RegisterRequest;
using router::v1::RegisterResponse;

bool SameReadiness(const router::v1::Report& a, const router::v1::Report& b) {
  return a.ready() == b.ready() && a.draining() == b.draining() && a.reason() == b.reason();
}

}  // namespace

// Lives from dial to OnDone; deletes itself.
struct RouterLink::Reactor final : grpc::ClientBidiReactor<RegisterRequest, RegisterResponse> {
  explicit Reactor(std::shared_ptr<RouterLink> l) : link(std::move(l)) {}
  void OnReadDone(bool ok) override { link->Received(*this, ok); }
  void OnWriteDone(bool ok) override { link->Written(ok); }
  void OnDone(const grpc::Status& status) override {
    const auto keep = std::move(link);
    keep->Ended(status);  // nobody knows this reactor after it
    delete this;
  }

  std::shared_ptr<RouterLink> link;
  grpc::ClientContext context;
  RegisterRequest out;
  RegisterResponse in;
};

RouterLink::RouterLink(std::string address, const router::v1::Hello& hello,
                       std::shared_ptr<RouterBells> bells)
    : address_(std::move(address)),
      bells_(std::move(bells)),
      channel_(MakeChannel(address_)),
      stub_(router::v1::RouterService::NewStub(channel_)),
      redial_after_(kRedialFirst) {
  *hello_.mutable_hello() = hello;
  report_.mutable_report()->set_reason("starting");
}

RouterLink::Moment RouterLink::Step(Moment now) {
  std::lock_guard lock(mutex_);
  if (cancelled_) return Moment::max();
  if (reactor_ == nullptr) {
    if (now < dial_at_) return dial_at_;
    Dial(now);
  }
  if (now >= give_up_at_) {
    // While the channel cannot connect, it tries again by itself.
    if (channel_->GetState(false) == GRPC_CHANNEL_READY) {
      give_up_reason_ = "the router sent no view within 5 s";
      reactor_->context.TryCancel();
      give_up_at_ = Moment::max();
    } else {
      give_up_at_ = now + kFirstViewWithin;
    }
  }
  if (writing_ || closing_) return give_up_at_;  // the end of the write rings
  if (!greeted_) {
    greeted_ = true;
    reactor_->out = hello_;
    Write();
    return give_up_at_;
  }
  if (now >= report_at_) {
    report_at_ = now + kReportEvery;
    reported_at_ = now;
    reactor_->out = report_;
    Write();
  }
  return std::min(give_up_at_, report_at_);
}

void RouterLink::Dial(Moment now) {
  auto* reactor = new Reactor(shared_from_this());
  reactor_ = reactor;
  greeted_ = false;
  viewed_ = false;
  give_up_reason_.clear();
  give_up_at_ = now + kFirstViewWithin;
  report_at_ = now;
  // The first try fails fast, so that its reason can be shown; after that the call goes out as soon
  // as the channel has connected.
  reactor->context.set_wait_for_ready(refused_);
  stub_->async()->Register(&reactor->context, reactor);
  reactor->AddHold();  // Step writes outside of reactions; released when the read side ends
  reactor->StartRead(&reactor->in);
  reactor->StartCall();
}

void RouterLink::Write() {
  writing_ = true;
  reactor_->StartWrite(&reactor_->out);
}

void RouterLink::Written(bool ok) {
  {
    std::lock_guard lock(mutex_);
    writing_ = false;
    closing_ = closing_ || !ok;
  }
  bells_->timer.Ring();
}

void RouterLink::Received(Reactor& reactor, bool ok) {
  {
    std::lock_guard lock(mutex_);
    if (ok) {
      viewed_ = true;
      give_up_at_ = Moment::max();
      redial_after_ = kRedialFirst;
      Push({std::move(*reactor.in.mutable_view())});
    } else {
      closing_ = true;
    }
  }
  if (!ok) {
    reactor.context.TryCancel();  // a half-closed stream is of no use
    reactor.RemoveHold();
    return;
  }
  bells_->events.Ring();
  reactor.StartRead(&reactor.in);
}

void RouterLink::Ended(const grpc::Status& status) {
  {
    std::lock_guard lock(mutex_);
    std::string reason = std::move(give_up_reason_);
    if (reason.empty()) reason = status.error_message();
    if (reason.empty()) reason = "the router closed the stream";
    Push({std::nullopt, std::move(reason)});
    reactor_ = nullptr;
    writing_ = false;
    closing_ = false;
    refused_ = !viewed_;
    give_up_at_ = Moment::max();
    dial_at_ = steady_clock::now() + redial_after_;
    redial_after_ = std::min(redial_after_ * 2, kRedialMax);
  }
  bells_->events.Ring();
  bells_->timer.Ring();
}

void RouterLink::Push(Event event) {
  if (!events_.empty() && events_.back().view.has_value() == event.view.has_value()) {
    events_.back() = std::move(event);
    return;
  }
  events_.push_back(std::move(event));
  // Views and ends alternate: leaving out a pair keeps the order true.
  if (events_.size() > kEventsMax) events_.erase(events_.begin(), events_.begin() + 2);
}

void RouterLink::SetReport(const router::v1::Report& report) {
  std::lock_guard lock(mutex_);
  const bool at_once = !SameReadiness(report_.report(), report);
  *report_.mutable_report() = report;
  report_at_ = at_once ? Moment::min() : std::min(report_at_, reported_at_ + kReportFigures);
}

void RouterLink::SetLastEpoch(const common::v1::Epoch& epoch) {
  std::lock_guard lock(mutex_);
  *hello_.mutable_hello()->mutable_last_epoch() = epoch;
}

std::deque<RouterLink::Event> RouterLink::TakeEvents() {
  std::lock_guard lock(mutex_);
  return std::exchange(events_, {});
}

void RouterLink::Cancel() {
  std::lock_guard lock(mutex_);
  cancelled_ = true;
  if (reactor_ != nullptr) reactor_->context.TryCancel();
}

bool RouterLink::idle() const {
  std::lock_guard lock(mutex_);
  return reactor_ == nullptr;
}

}  // namespace expertmesh::rpc

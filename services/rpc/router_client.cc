#include "services/rpc/router_client.h"

#include <algorithm>
#include <chrono>
#include <utility>

#include "services/rpc/router_link.h"
#include "services/rpc/view_chooser.h"

namespace expertmesh::rpc {

RouterClient::RouterClient(std::vector<std::string> addresses, router::v1::Hello hello,
                           OnView on_view, OnRouter on_router)
    : on_view_(std::move(on_view)),
      on_router_(std::move(on_router)),
      bells_(std::make_shared<RouterBells>()),
      seen_(addresses.size()),
      chooser_(std::make_unique<ViewChooser>(addresses.size())) {
  for (std::string& address : addresses) {
    links_.push_back(std::make_shared<RouterLink>(std::move(address), hello, bells_));
  }
  timer_ = std::thread([this] { TimerLoop(); });
  events_ = std::thread([this] { EventLoop(); });
}

RouterClient::~RouterClient() { Stop(); }

void RouterClient::Report(const router::v1::Report& report) {
  for (const auto& link : links_) link->SetReport(report);
  bells_->timer.Ring();
}

void RouterClient::Stop() {
  std::call_once(stopped_, [this] {
    stopping_ = true;
    bells_->timer.Ring();
    bells_->events.Ring();
    timer_.join();
    events_.join();
  });
}

void RouterClient::TimerLoop() {
  while (!stopping_) {
    auto next = RouterLink::Moment::max();
    for (const auto& link : links_) {
      next = std::min(next, link->Step(std::chrono::steady_clock::now()));
    }
    bells_->timer.WaitUntil(next);
  }
  for (const auto& link : links_) link->Cancel();
  for (const auto& link : links_) {
    while (!link->idle()) bells_->timer.Wait();
  }
}

void RouterClient::EventLoop() {
  while (!stopping_) {
    for (size_t router = 0; router < links_.size(); ++router) Deliver(router);
    bells_->events.Wait();
  }
}

void RouterClient::Deliver(size_t router) {
  RouterLink& link = *links_[router];
  Seen& seen = seen_[router];
  for (RouterLink::Event& event : link.TakeEvents()) {
    if (stopping_) return;
    const bool up = event.view.has_value();
    const bool news = !seen.known || seen.up != up || seen.reason != event.reason;
    seen = {true, up, event.reason};
    if (news && on_router_) on_router_(link.address(), up, event.reason);
    const bool follow =
        up ? chooser_->Received(router, *std::move(event.view)) : chooser_->Lost(router);
    if (up) {
      for (const auto& l : links_) l->SetLastEpoch(chooser_->newest_epoch());
    }
    if (follow && on_view_) on_view_(chooser_->view());
  }
}

}  // namespace expertmesh::rpc

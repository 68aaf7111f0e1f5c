// Which of several routers' views a member follows. Pure: no clock, no thread, no network.
#pragma once

#include <cstddef>
#include <optional>
#include <vector>

#include "expertmesh/router/v1/router.pb.h"

namespace expertmesh::rpc {

/// The newest placement epoch (term, number) wins; among equals the view that came last. A router
/// counts while its stream is open. Without any, the last view stays in force at the member.
class ViewChooser {
 public:
  explicit ViewChooser(size_t router_count) : views_(router_count) {}

  /// A view came. True if it is the one to follow now.
  bool Received(size_t router, router::v1::View view);
  /// A stream ended. True if the view of another router is the one to follow now.
  bool Lost(size_t router);
  /// The view to follow; call it when one of the above said true.
  const router::v1::View& view() const { return *views_[*followed_]; }
  /// The newest epoch of all views so far; term 0 if there was none.
  const common::v1::Epoch& newest_epoch() const { return newest_; }

 private:
  std::vector<std::optional<router::v1::View>> views_;  // [router]; absent while its stream is down
  std::optional<size_t> followed_;
  common::v1::Epoch newest_;
};

}  // namespace expertmesh::rpc

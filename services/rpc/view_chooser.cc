#include "services/rpc/view_chooser.h"

#include <tuple>
#include <utility>

namespace expertmesh::rpc {
namespace {

bool Older(const common::v1::Epoch& a, const common::v1::Epoch& b) {
  return std::make_tuple(a.term(), a.number()) < std::make_tuple(b.term(), b.number());
}

}  // namespace

bool ViewChooser::Received(size_t router, router::v1::View view) {
  const common::v1::Epoch& epoch = view.placement().epoch();
  if (Older(newest_, epoch)) newest_ = epoch;
  const bool older =
      followed_ && *followed_ != router && Older(epoch, views_[*followed_]->placement().epoch());
  views_[router] = std::move(view);
  if (older) return false;
  followed_ = router;
  return true;
}

bool ViewChooser::Lost(size_t router) {
  views_[router].reset();
  if (followed_ != router) return false;
  followed_.reset();
  for (size_t i = 0; i < views_.size(); ++i) {
    if (!views_[i]) continue;
    if (!followed_ ||
        Older(views_[*followed_]->placement().epoch(), views_[i]->placement().epoch())) {
      followed_ = i;
    }
  }
  return followed_.has_value();
}

}  // namespace expertmesh::rpc

// The settings that are part of a revision besides config and weights (docs/architecture.md §2,
// §12).
#pragma once

#include <string>

namespace expertmesh::model {

/// The options text for Checkpoint::Revision; empty for the defaults.
inline std::string RevisionOptions(bool masked_gate_group_zero) {
  return masked_gate_group_zero ? "masked_gate_group=zero" : "";
}

}  // namespace expertmesh::model

// The settings that are part of a revision besides config and weights (docs/architecture.md §2,
// §12).
#pragma once

#include <string>

#include "absl/strings/str_cat.h"
#include "model/config_overrides.h"

namespace expertmesh::model {

/// The options text for Checkpoint::Revision; empty for the defaults.
inline std::string RevisionOptions(bool masked_gate_group_zero, const ConfigOverrides& overrides) {
  std::string options = masked_gate_group_zero ? "masked_gate_group=zero" : "";
  if (!overrides.empty()) absl::StrAppend(&options, "\noverride ", overrides.Json());
  return options;
}

}  // namespace expertmesh::model

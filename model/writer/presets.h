// Named shapes for `expertmesh model init` (docs/model-family.md §6).
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "model/config.h"

namespace expertmesh::model {

/// How random weights are drawn (docs/model-family.md §6, "Random weights").
enum class WeightStyle {
  kSpread,  // norms 1 + 0.1ξ, bias 0.1ξ, Linear ξ/sqrt(fan_in), embedding ξ, …: nothing near
            // neutral
  kFlat,    // norms 1, bias 0, Linear and embedding 0.02ξ: for measuring speed
};

struct Preset {
  Config config;
  WeightStyle style = WeightStyle::kSpread;
  bool fp8_tables = false;  // tables of the memory as fp8 with a scale for 32 columns
  bool on_paper = false;    // for counting and planning; nobody writes it
};

/// "tiny-v3", "tiny", "demo", "bench-1b", "bench-1b-full" or "1t"; kInvalidArgument listing the
/// known ones otherwise.
absl::StatusOr<Preset> FindPreset(std::string_view name);
std::vector<std::string> PresetNames();
/// Those that `model init` writes.
std::vector<std::string> WrittenPresetNames();

}  // namespace expertmesh::model

// The built-in text that a preset's merges are learned from: common English words, words of
// programming, frequent Chinese and accented words, and runs of white space. Most useful first.
#pragma once

#include <vector>

#include "model/tokenizer/merge_trainer.h"

namespace expertmesh::model {

/// Every word as it appears inside a line (with its space), at its start, and with a capital
/// letter. Weights fall with the rank in the list.
std::vector<WeightedWord> PresetWords();

}  // namespace expertmesh::model

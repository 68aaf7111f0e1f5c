// Keys of the families with sparse attention, several residual streams and a memory of n-grams
// (docs/model-family.md §2, docs/formats.md §2).
#pragma once

#include "model/config.h"
#include "model/config_keys.h"

namespace expertmesh::model {

/// Reads indexer, hc_* and engram_* keys of config.model_type into `config`, whose sizes are
/// already checked. Other families' keys are ignored.
void ReadFamilyKeys(KeyReader& keys, Config& config);

}  // namespace expertmesh::model

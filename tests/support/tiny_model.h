// Small random models for tests of real processes: each made once per test program by `expertmesh
// model init`.
#pragma once

#include <string>

namespace expertmesh::test_support {

/// Directory of a preset with seed 1; removed when the program ends.
const std::string& TinyModel(const std::string& preset = "tiny-v3");

}  // namespace expertmesh::test_support

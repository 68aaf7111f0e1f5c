// The tiny-v3 model for tests of real processes: made once per test program by `expertmesh model
// init`.
#pragma once

#include <string>

namespace expertmesh::test_support {

/// Directory of a tiny-v3 with seed 1; removed when the program ends.
const std::string& TinyModel();

}  // namespace expertmesh::test_support

#include "tests/support/tiny_model.h"

#include <cstdio>
#include <cstdlib>

#include "tests/support/child_process.h"
#include "tests/support/temp_dir.h"

namespace expertmesh::test_support {

const std::string& TinyModel() {
  static const TempDir dir;
  static const std::string model = [] {
    const std::string out = dir / "tiny-v3";
    ChildProcess init(
        {"expertmesh", "model", "init", "--preset", "tiny-v3", "--seed", "1", "--out", out},
        dir / "init.log");
    if (init.Wait(std::chrono::seconds(60)) != 0) {
      std::fprintf(stderr, "expertmesh model init failed: %s\n", init.Log().c_str());
      std::abort();
    }
    return out;
  }();
  return model;
}

}  // namespace expertmesh::test_support

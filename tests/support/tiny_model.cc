#include "tests/support/tiny_model.h"

#include <cstdio>
#include <cstdlib>
#include <map>

#include "tests/support/child_process.h"
#include "tests/support/temp_dir.h"

namespace expertmesh::test_support {

const std::string& TinyModel(const std::string& preset) {
  static const TempDir dir;
  static std::map<std::string, std::string> made;
  const auto [model, fresh] = made.try_emplace(preset, dir / preset);
  if (!fresh) return model->second;
  ChildProcess init(
      {"expertmesh", "model", "init", "--preset", preset, "--seed", "1", "--out", model->second},
      dir / "init.log");
  if (init.Wait(std::chrono::seconds(60)) != 0) {
    std::fprintf(stderr, "expertmesh model init failed: %s\n", init.Log().c_str());
    std::abort();
  }
  return model->second;
}

}  // namespace expertmesh::test_support

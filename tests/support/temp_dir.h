// A directory of one test, removed with everything in it when the test ends.
#pragma once

#include <string>
#include <string_view>

namespace expertmesh::test_support {

/// Made on construction below the system's temporary directory; aborts where that is impossible.
class TempDir {
 public:
  TempDir();
  ~TempDir();
  TempDir(const TempDir&) = delete;
  TempDir& operator=(const TempDir&) = delete;

  const std::string& path() const { return path_; }
  /// The path of a file or folder inside.
  std::string operator/(std::string_view name) const;

 private:
  std::string path_;
};

/// Whole files, as bytes; both abort where the file system refuses.
void WriteFile(const std::string& path, std::string_view bytes);
std::string ReadFile(const std::string& path);

}  // namespace expertmesh::test_support

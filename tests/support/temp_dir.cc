#include "tests/support/temp_dir.h"

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <system_error>

namespace expertmesh::test_support {
namespace {

[[noreturn]] void Die(std::string_view what, const std::string& path) {
  std::fprintf(stderr, "test_support: cannot %.*s %s\n", static_cast<int>(what.size()), what.data(),
               path.c_str());
  std::abort();
}

}  // namespace

TempDir::TempDir() {
  std::error_code error;
  path_ = (std::filesystem::temp_directory_path(error) / "expertmesh-test-XXXXXX").string();
  if (error || mkdtemp(path_.data()) == nullptr) Die("make the temporary directory", path_);
}

TempDir::~TempDir() {
  std::error_code error;
  std::filesystem::remove_all(path_, error);
}

std::string TempDir::operator/(std::string_view name) const {
  return (std::filesystem::path(path_) / name).string();
}

void WriteFile(const std::string& path, std::string_view bytes) {
  std::ofstream file(path, std::ios::binary | std::ios::trunc);
  file.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  file.close();
  if (!file) Die("write", path);
}

std::string ReadFile(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) Die("read", path);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

}  // namespace expertmesh::test_support

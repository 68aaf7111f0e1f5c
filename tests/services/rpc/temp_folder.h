// A folder for sockets, gone with its owner. Short: a socket's path has at most 107 bytes.
#pragma once

#include <cstdlib>
#include <filesystem>
#include <string>
#include <system_error>

namespace expertmesh::rpc {

class TempFolder {
 public:
  TempFolder() {
    std::string pattern = "/tmp/em-rpc-XXXXXX";
    if (mkdtemp(pattern.data()) == nullptr) std::abort();
    path_ = pattern;
  }
  ~TempFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  TempFolder(const TempFolder&) = delete;
  TempFolder& operator=(const TempFolder&) = delete;

  std::string path(const std::string& name) const { return path_ + "/" + name; }
  std::string address(const std::string& name) const { return "unix:" + path(name); }

 private:
  std::string path_;
};

}  // namespace expertmesh::rpc

// The name under which a model directory is served.
#pragma once

#include <filesystem>
#include <string>

namespace expertmesh::base {

/// `served_model_name` if given, else the last component of the directory ("models/demo/" →
/// "demo").
inline std::string ModelName(const std::string& directory, const std::string& served_model_name) {
  if (!served_model_name.empty()) return served_model_name;
  auto path = std::filesystem::path(directory).lexically_normal();
  if (!path.has_filename()) path = path.parent_path();
  return path.filename().string();
}

}  // namespace expertmesh::base

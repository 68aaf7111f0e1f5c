#include "gateway/generation_config.h"

#include <filesystem>
#include <fstream>
#include <sstream>

#include "absl/strings/str_cat.h"
#include "gateway/core/sampling_defaults.h"
#include "services/base/status.h"

namespace expertmesh::gateway {
namespace {

constexpr uintmax_t kFileBytesMax = 1u << 20;

}  // namespace

absl::StatusOr<SamplingDefaults> LoadSamplingDefaults(const std::string& model_directory) {
  const std::filesystem::path path =
      std::filesystem::path(model_directory) / "generation_config.json";
  std::error_code error;
  const uintmax_t size = std::filesystem::file_size(path, error);
  if (error) return SamplingDefaults{};
  if (size > kFileBytesMax) {
    return base::Error(base::Reason::kInvalidArgument, absl::StrCat(path.string(), ": too large"));
  }
  std::ifstream file(path, std::ios::binary);
  std::ostringstream text;
  text << file.rdbuf();
  auto parsed = ParseSamplingDefaults(text.str());
  if (!parsed.ok()) {
    return base::Error(base::Reason::kInvalidArgument,
                       absl::StrCat(path.string(), ": ", parsed.status().message(),
                                    "; mend it, or start with --no-generation-config"));
  }
  return parsed;
}

}  // namespace expertmesh::gateway

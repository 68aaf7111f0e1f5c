#include "tests/parity/report.h"

#include <boost/json/object.hpp>
#include <boost/json/serialize.hpp>
#include <cstdlib>
#include <fstream>

#include "absl/strings/str_format.h"

namespace expertmesh::parity {

void Report(const Golden& golden, const std::string& path, const std::string& compared,
            const std::vector<std::pair<std::string, std::string>>& figures) {
  const char* file = std::getenv("EXPERTMESH_PARITY_REPORT");
  if (file == nullptr || *file == '\0') return;
  boost::json::object line;
  line["family"] = golden.model_type;
  line["case"] = golden.name;
  line["oracle"] = golden.oracle;
  line["path"] = path;
  line["compared"] = compared;
  boost::json::object values;
  for (const auto& [name, value] : figures) values[name] = value;
  line["figures"] = values;
  std::ofstream(file, std::ios::app) << boost::json::serialize(line) << "\n";
}

std::string Short(double value) { return value == 0 ? "0" : absl::StrFormat("%.1e", value); }

}  // namespace expertmesh::parity

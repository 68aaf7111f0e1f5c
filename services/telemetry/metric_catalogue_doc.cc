// Prints docs/metrics.md.
#include <cstdio>

#include "services/telemetry/metric_catalogue.h"

int main() {
  const std::string page = expertmesh::telemetry::CataloguePage();
  return std::fwrite(page.data(), 1, page.size(), stdout) == page.size() ? 0 : 1;
}

#include "services/telemetry/metric_catalogue.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>
#include <regex>
#include <set>
#include <sstream>
#include <string>

namespace expertmesh::telemetry {
namespace {

std::string ReadSource(const std::string& path) {
  std::ifstream file(std::string(EXPERTMESH_SOURCE_DIR "/") + path);
  std::stringstream text;
  text << file.rdbuf();
  return text.str();
}

TEST(MetricCatalogue, DocsPageIsThePrintedOne) {
  EXPECT_EQ(ReadSource("docs/metrics.md"), CataloguePage())
      << "run: build/release/bin/metric-catalogue-doc > docs/metrics.md";
}

TEST(MetricCatalogue, ListsEveryConstantOfTheHeader) {
  const std::string header = ReadSource("services/telemetry/metric_catalogue.h");
  const std::regex constant("inline constexpr MetricId k");
  const auto count = std::distance(std::sregex_iterator(header.begin(), header.end(), constant),
                                   std::sregex_iterator());
  EXPECT_EQ(static_cast<size_t>(count), Catalogue().size());
}

TEST(MetricCatalogue, NamesAreUniqueAndInBaseUnits) {
  std::set<std::pair<std::string_view, std::string_view>> seen;
  for (const MetricId* id : Catalogue()) {
    const std::string name(id->name);
    EXPECT_TRUE(seen.insert({id->component, id->name}).second) << name;
    EXPECT_TRUE(std::regex_match(name, std::regex("[a-z][a-z0-9_]*"))) << name;
    EXPECT_EQ(name.ends_with("_total"), id->type == MetricType::kCounter) << name;
    EXPECT_FALSE(std::regex_search(name, std::regex("_(ms|us|milliseconds|kb|mb|percent)(_|$)")))
        << name;
    EXPECT_TRUE(id->help.ends_with(".")) << name;
    EXPECT_EQ(id->help.find_first_of("\n|\\"), std::string_view::npos) << name;
    const bool known = id->component.empty() ||
                       std::count(std::begin(kComponents), std::end(kComponents), id->component);
    EXPECT_TRUE(known) << name;
  }
  // What every component has must not come again under one of them: the exposed names would clash.
  for (const MetricId* id : Catalogue()) {
    EXPECT_TRUE(id->component.empty() || !seen.contains({"", id->name})) << id->name;
  }
}

TEST(MetricCatalogue, HistogramsAndOnlyTheyHaveAscendingBuckets) {
  for (const MetricId* id : Catalogue()) {
    EXPECT_EQ(id->buckets.empty(), id->type != MetricType::kHistogram) << id->name;
    EXPECT_EQ(std::adjacent_find(id->buckets.begin(), id->buckets.end(), std::greater_equal<>()),
              id->buckets.end())
        << id->name;
  }
}

TEST(MetricCatalogue, LabelsAreNamesWithoutGaps) {
  for (const MetricId* id : Catalogue()) {
    bool ended = false;
    for (std::string_view label : id->labels) {
      if (label.empty()) {
        ended = true;
        continue;
      }
      EXPECT_FALSE(ended) << id->name;
      EXPECT_TRUE(std::regex_match(std::string(label), std::regex("[a-z][a-z_]*"))) << id->name;
      EXPECT_NE(label, "le");
      EXPECT_NE(label, "layer");
      EXPECT_NE(label, "expert");
    }
  }
}

}  // namespace
}  // namespace expertmesh::telemetry

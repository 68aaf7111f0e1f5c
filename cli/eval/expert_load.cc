#include "cli/eval/expert_load.h"

#include <algorithm>
#include <boost/json/array.hpp>
#include <utility>

#include "absl/strings/str_format.h"

namespace expertmesh::cli {

void ExpertLoad::Add(uint32_t layer, uint32_t expert, uint64_t rows) {
  rows_[layer][expert] += rows;
  experts_ = std::max(experts_, expert + 1);
}

std::vector<ExpertLoad::Layer> ExpertLoad::Layers() const {
  std::vector<Layer> layers;
  for (const auto& [number, experts] : rows_) {
    Layer layer;
    layer.layer = number;
    layer.unused = experts_;
    for (const auto& [expert, rows] : experts) {
      layer.rows += rows;
      if (rows > 0) --layer.unused;
      if (rows <= layer.busiest_rows) continue;
      layer.busiest = expert;
      layer.busiest_rows = rows;
    }
    if (layer.rows == 0) continue;
    layer.over_mean =
        static_cast<double>(layer.busiest_rows) * experts_ / static_cast<double>(layer.rows);
    layers.push_back(layer);
  }
  return layers;
}

double ExpertLoad::Worst() const {
  double worst = 0;
  for (const Layer& layer : Layers()) worst = std::max(worst, layer.over_mean);
  return worst;
}

boost::json::object ExpertLoad::Json() const {
  boost::json::array layers;
  for (const Layer& layer : Layers()) {
    boost::json::array rows(experts_);
    for (auto& one : rows) one = 0;
    for (const auto& [expert, count] : rows_.at(layer.layer)) rows[expert] = count;
    layers.push_back(boost::json::object{{"layer", layer.layer},
                                         {"rows", layer.rows},
                                         {"busiest", layer.busiest},
                                         {"over_mean", layer.over_mean},
                                         {"unused", layer.unused},
                                         {"expert_rows", std::move(rows)}});
  }
  return {{"experts", experts_}, {"worst_over_mean", Worst()}, {"layers", std::move(layers)}};
}

std::string ExpertLoad::Text() const {
  std::string text = absl::StrFormat("%-6s %12s %8s %12s %10s %8s\n", "layer", "rows", "busiest",
                                     "its rows", "over mean", "unused");
  for (const Layer& layer : Layers()) {
    absl::StrAppendFormat(&text, "%-6d %12d %8d %12d %10.2f %8d\n", layer.layer, layer.rows,
                          layer.busiest, layer.busiest_rows, layer.over_mean, layer.unused);
  }
  absl::StrAppendFormat(&text, "\nlargest share of an expert over the mean of its layer: %.2f\n",
                        Worst());
  return text;
}

}  // namespace expertmesh::cli

// How evenly the experts of each layer are used. Pure.
#pragma once

#include <boost/json/object.hpp>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace expertmesh::cli {

/// Rows by layer and expert, from any number of workers.
class ExpertLoad {
 public:
  /// Adds to what is there: replicas of an expert share its rows.
  void Add(uint32_t layer, uint32_t expert, uint64_t rows);

  struct Layer {
    uint32_t layer = 0;
    uint64_t rows = 0;     // (row, expert) pairs
    uint32_t busiest = 0;  // expert
    uint64_t busiest_rows = 0;
    uint64_t unused = 0;   // experts that no row went to
    double over_mean = 0;  // busiest_rows · experts ÷ rows
  };
  /// Ascending; layers without a row are left out. `experts`: of the whole model.
  std::vector<Layer> Layers() const;
  uint32_t experts() const { return experts_; }
  /// The largest over_mean; 0 if nothing ran.
  double Worst() const;

  boost::json::object Json() const;
  std::string Text() const;

 private:
  std::map<uint32_t, std::map<uint32_t, uint64_t>> rows_;  // layer → expert → rows
  uint32_t experts_ = 0;                                   // largest id + 1
};

}  // namespace expertmesh::cli

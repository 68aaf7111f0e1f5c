#include "model/blocks/selection.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace expertmesh::model {

bool SelectLargest(std::span<const float> scores, size_t top, std::vector<uint32_t>& order,
                   uint32_t* out) {
  const auto is_nan = [](float score) { return std::isnan(score); };
  if (std::any_of(scores.begin(), scores.end(), is_nan)) return false;
  order.resize(scores.size());
  std::iota(order.begin(), order.end(), 0u);
  const auto last = order.begin() + static_cast<std::ptrdiff_t>(top);
  // A total order, so the set does not depend on the algorithm.
  std::nth_element(order.begin(), last, order.end(), [&](uint32_t a, uint32_t b) {
    return scores[a] != scores[b] ? scores[a] > scores[b] : a < b;
  });
  std::sort(order.begin(), last);
  std::copy(order.begin(), last, out);
  return true;
}

}  // namespace expertmesh::model

#include "gateway/core/stop_matcher.h"

#include <algorithm>
#include <utility>

namespace expertmesh::gateway {

std::string StopMatcher::Push(std::string_view text) {
  if (stopped_) return "";
  held_ += text;
  // The match that is complete first wins, so that the cut does not depend on how the text came.
  size_t end = std::string::npos;
  size_t begin = std::string::npos;
  for (const std::string& stop : stops_) {
    const size_t at = held_.find(stop);
    if (at == std::string::npos) continue;
    if (std::pair(at + stop.size(), at) < std::pair(end, begin)) {
      end = at + stop.size();
      begin = at;
    }
  }
  if (end != std::string::npos) {
    stopped_ = true;
    match_ = held_.substr(begin, end - begin);
    return std::exchange(held_, "").substr(0, begin);
  }
  // The longest tail that is the beginning of a stop string stays.
  size_t keep = 0;
  for (const std::string& stop : stops_) {
    for (size_t n = std::min(stop.size() - 1, held_.size()); n > keep; --n) {
      if (held_.compare(held_.size() - n, n, stop, 0, n) == 0) keep = n;
    }
  }
  std::string out = held_.substr(0, held_.size() - keep);
  held_.erase(0, held_.size() - keep);
  return out;
}

std::string StopMatcher::Flush() { return stopped_ ? "" : std::exchange(held_, ""); }

}  // namespace expertmesh::gateway

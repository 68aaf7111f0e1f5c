// Stop strings over a stream of text pieces: holds back what could become one. Pure.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace expertmesh::gateway {

class StopMatcher {
 public:
  explicit StopMatcher(std::vector<std::string> stops) : stops_(std::move(stops)) {}

  /// The text that is safe to send. Nothing comes after a match; the stop string itself never does.
  std::string Push(std::string_view text);
  /// What was held back, at the end of the answer.
  std::string Flush();
  bool stopped() const { return stopped_; }

 private:
  const std::vector<std::string> stops_;
  std::string held_;
  bool stopped_ = false;
};

}  // namespace expertmesh::gateway

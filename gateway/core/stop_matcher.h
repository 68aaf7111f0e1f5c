// Stop strings over a stream of text pieces: holds back what could become one. Pure.
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace expertmesh::gateway {

class StopMatcher {
 public:
  /// None of the stops is empty.
  explicit StopMatcher(std::vector<std::string> stops) : stops_(std::move(stops)) {}

  /// The text that is safe to send: however the pieces are cut, all pieces joined are the text up
  /// to the stop string that is complete first. Nothing comes after a match.
  std::string Push(std::string_view text);
  /// What was held back, at the end of the answer.
  std::string Flush();
  bool stopped() const { return stopped_; }
  /// The stop string that came; empty before.
  const std::string& match() const { return match_; }

 private:
  std::vector<std::string> stops_;
  std::string held_;
  std::string match_;
  bool stopped_ = false;
};

}  // namespace expertmesh::gateway

// One run of the command line inside the test program.
#pragma once

#include <sstream>
#include <string>
#include <vector>

#include "cli/command_line.h"

namespace expertmesh::cli {

struct Outcome {
  int code = 0;
  std::string out = {};
  std::string err = {};
};

/// `expertmesh WORDS…`, to its end.
inline Outcome Expertmesh(const std::vector<std::string>& words) {
  std::vector<const char*> argv = {"expertmesh"};
  for (const std::string& word : words) argv.push_back(word.c_str());
  std::ostringstream out, err;
  const int code = RunCommandLine(static_cast<int>(argv.size()), argv.data(), out, err);
  return {code, out.str(), err.str()};
}

}  // namespace expertmesh::cli

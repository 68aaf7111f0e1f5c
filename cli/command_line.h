// The `expertmesh` command: flags in, one command run, an exit code out.
#pragma once

#include <iosfwd>

namespace expertmesh::cli {

/// 0 on success and for --help; 1 on any error, with one line "expertmesh: …" on err. Results go to
/// out, progress to err.
int RunCommandLine(int argc, const char* const* argv, std::ostream& out, std::ostream& err);

}  // namespace expertmesh::cli

// Ctrl-C and SIGTERM as a flag that a long command asks for, so that it can clean up.
#pragma once

namespace expertmesh::cli {

/// Handlers for SIGINT and SIGTERM while it lives; the old ones come back after. One at a time.
/// A second signal ends the process as if there were none.
class StopFlag {
 public:
  StopFlag();
  ~StopFlag();
  StopFlag(const StopFlag&) = delete;
  StopFlag& operator=(const StopFlag&) = delete;

  /// Whether a signal came since construction; false when none lives.
  static bool IsSet();
};

}  // namespace expertmesh::cli

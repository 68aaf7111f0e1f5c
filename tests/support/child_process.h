// A real process under test: started from the build's bin folder, killed with the test.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <optional>
#include <string>
#include <vector>

namespace expertmesh::test_support {

class ChildProcess {
 public:
  /// Starts argv[0] (looked up in EXPERTMESH_BIN_DIR unless it has a slash); output goes to
  /// `log_path`.
  ChildProcess(std::vector<std::string> argv, std::string log_path);
  ~ChildProcess();  // SIGKILL if it still runs
  ChildProcess(ChildProcess&&) noexcept;
  ChildProcess(const ChildProcess&) = delete;

  void Signal(int signal) const;
  /// Exit code (128 + signal if killed), or nothing after the timeout. Waits on the process, not on
  /// time.
  std::optional<int> Wait(std::chrono::milliseconds timeout);
  bool running();
  pid_t pid() const { return pid_; }
  /// What it printed so far.
  std::string Log() const;

 private:
  pid_t pid_ = -1;
  int pidfd_ = -1;
  std::optional<int> exit_code_;
  std::string log_path_;
};

/// Waits until a file of that name exists (inotify), then returns its content; nullopt after the
/// timeout or once `process` has ended.
std::optional<std::string> WaitForFile(const std::string& path, std::chrono::milliseconds timeout);

}  // namespace expertmesh::test_support

// Stop signals, sent to a real process.
#include <gtest/gtest.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstdint>
#include <cstdlib>
#include <fstream>
#include <string>

extern char** environ;

namespace expertmesh::lifecycle {
namespace {

class StopTest : public testing::Test {
 protected:
  void Spawn(const std::string& mode) {
    int out[2] = {};
    ASSERT_EQ(pipe(out), 0);
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, out[1], STDOUT_FILENO);
    posix_spawn_file_actions_addclose(&actions, out[0]);
    std::string path = EXPERTMESH_BIN_DIR "/lifecycle-stop-child";
    std::string argument = mode;
    char* argv[] = {path.data(), argument.data(), nullptr};
    ASSERT_EQ(posix_spawn(&child_, path.c_str(), &actions, nullptr, argv, environ), 0);
    posix_spawn_file_actions_destroy(&actions);
    close(out[1]);
    output_ = fdopen(out[0], "r");
    ASSERT_EQ(Line(), "ready");
  }
  ~StopTest() override {
    if (output_ != nullptr) fclose(output_);
    if (child_ > 0) {
      kill(child_, SIGKILL);
      waitpid(child_, nullptr, 0);
    }
  }

  // The child's next line; "" when it is gone.
  std::string Line() {
    char line[256];
    if (fgets(line, sizeof(line), output_) == nullptr) return "";
    std::string text(line);
    if (!text.empty() && text.back() == '\n') text.pop_back();
    return text;
  }
  // Its exit status, or 1000 + the signal that killed it.
  int ExitStatus() {
    int status = 0;
    waitpid(child_, &status, 0);
    child_ = -1;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
  }

  pid_t child_ = -1;
  FILE* output_ = nullptr;
};

TEST_F(StopTest, TermDrainsAndEndsWithZero) {
  for (const int signal : {SIGTERM, SIGINT}) {
    Spawn("drain");
    kill(child_, signal);
    EXPECT_EQ(Line(), "drain: draining");
    EXPECT_EQ(Line(), "end");
    EXPECT_EQ(ExitStatus(), 0);
    fclose(output_);
    output_ = nullptr;
  }
}

TEST_F(StopTest, TheSecondSignalEndsAtOnce) {
  Spawn("stuck");
  kill(child_, SIGTERM);
  EXPECT_EQ(Line(), "drain: draining");
  kill(child_, SIGTERM);
  EXPECT_EQ(ExitStatus(), 130);
}

TEST_F(StopTest, AProcessThatDoesNotComeToItsEndIsEnded) {
  Spawn("busy");
  kill(child_, SIGTERM);
  EXPECT_EQ(ExitStatus(), 1);
}

// A PID 1 gets only the signals that it catches, so the handlers must be set, not defaulted.
TEST_F(StopTest, SignalsAreCaughtAndBrokenPipesIgnored) {
  Spawn("drain");
  uint64_t caught = 0;
  uint64_t ignored = 0;
  std::ifstream status("/proc/" + std::to_string(child_) + "/status");
  for (std::string key, value; status >> key;) {
    if (key != "SigCgt:" && key != "SigIgn:") continue;
    status >> value;
    (key == "SigCgt:" ? caught : ignored) = std::strtoull(value.c_str(), nullptr, 16);
  }
  const auto bit = [](int signal) { return uint64_t{1} << (signal - 1); };
  EXPECT_TRUE(caught & bit(SIGTERM));
  EXPECT_TRUE(caught & bit(SIGINT));
  EXPECT_TRUE(ignored & bit(SIGPIPE));
}

}  // namespace
}  // namespace expertmesh::lifecycle

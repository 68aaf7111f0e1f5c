// `expertmesh model convert` as a user runs it, and what a signal leaves of init and convert.
#include <gtest/gtest.h>

#include <csignal>
#include <filesystem>
#include <sstream>
#include <string>
#include <vector>

#include "cli/stop_flag.h"
#include "model/writer/converter.h"
#include "services/base/status.h"
#include "tests/cli/run_expertmesh.h"
#include "tests/support/child_process.h"
#include "tests/support/temp_dir.h"

namespace expertmesh::cli {
namespace {

using std::chrono::seconds;

size_t EntriesOf(const std::string& directory) {
  const std::filesystem::directory_iterator begin(directory);
  return static_cast<size_t>(std::distance(begin, std::filesystem::directory_iterator()));
}

class ConvertCommand : public testing::Test {
 protected:
  ConvertCommand() {
    EXPECT_EQ(Expertmesh({"model", "init", "--preset", "tiny-v3", "--out", dir_ / "m"}).code, 0);
  }
  Outcome Convert(const std::string& format, const std::string& out,
                  const std::vector<std::string>& more = {}) {
    std::vector<std::string> words = {"model", "convert", "--from", dir_ / "m",
                                      "--to",  format,    "--out",  dir_ / out};
    words.insert(words.end(), more.begin(), more.end());
    return Expertmesh(words);
  }

  test_support::TempDir dir_;
};

TEST_F(ConvertCommand, PrintsTheErrorsByPartAndShowPrintsTheForms) {
  const Outcome made = Convert("fp4", "out");
  ASSERT_EQ(made.code, 0) << made.err;
  EXPECT_EQ(made.err, "");
  for (const char* text : {"relative RMS", "routed_experts   fp4 1x32", "786,432",
                           "mla              fp8 128x128", "971,220 bytes", "revision "}) {
    EXPECT_NE(made.out.find(text), std::string::npos) << text << " in\n" << made.out;
  }
  const Outcome shown = Expertmesh({"model", "show", dir_ / "out"});
  EXPECT_EQ(shown.code, 0) << shown.err;
  // 786,432 / 2 + 786,432 / 32 bytes of fp4.
  EXPECT_NE(shown.out.find("weights    fp4 1x32 417,792 bytes, F32 300,800 bytes, fp8 128x128 "),
            std::string::npos)
      << shown.out;
  EXPECT_EQ(shown.out.find("Not used"), std::string::npos) << shown.out;
  const Outcome json = Expertmesh({"model", "show", "--json", dir_ / "out"});
  EXPECT_NE(json.out.find(R"("formats":{"fp4 1x32":417792,"F32":300800,)"), std::string::npos)
      << json.out;
  const std::string revision = made.out.substr(made.out.rfind(' ') + 1, 64);
  EXPECT_NE(shown.out.find(revision), std::string::npos);
}

TEST_F(ConvertCommand, GroupSizeAndShardsAreTaken) {
  ASSERT_EQ(Convert("int8", "a", {"--group-size", "128"}).code, 0);
  EXPECT_NE(Expertmesh({"model", "show", dir_ / "a"}).out.find("int8 1x128"), std::string::npos);
  ASSERT_EQ(Convert("f32", "b", {"--shard-mb", "1"}).code, 0);
  EXPECT_TRUE(std::filesystem::exists(dir_ / "b/model.safetensors.index.json"));
}

TEST_F(ConvertCommand, MistakesAreOneLineAndLeaveNothing) {
  const size_t entries = EntriesOf(dir_.path());
  for (const Outcome& outcome : {Convert("q4_k", "out"), Convert("int8", "m"),
                                 Convert("int8", "out", {"--group-size", "64"}),
                                 Expertmesh({"model", "convert", "--to", "int8"}),
                                 Expertmesh({"model", "convert", "--from", dir_ / "absent", "--to",
                                             "int8", "--out", dir_ / "out"})}) {
    EXPECT_EQ(outcome.code, 1);
    EXPECT_EQ(outcome.out, "");
    EXPECT_EQ(outcome.err.find("expertmesh: "), 0u) << outcome.err;
    EXPECT_EQ(outcome.err.find('\n'), outcome.err.size() - 1) << outcome.err;
  }
  EXPECT_EQ(EntriesOf(dir_.path()), entries);
}

TEST_F(ConvertCommand, HelpHasExamples) {
  const Outcome help = Expertmesh({"model", "convert", "--help"});
  EXPECT_EQ(help.code, 0);
  EXPECT_NE(help.out.find("Example"), std::string::npos) << help.out;
  EXPECT_NE(help.out.find("fp8-128"), std::string::npos) << help.out;
}

TEST_F(ConvertCommand, ASignalStopsAConversionWhichCleansUp) {
  const size_t entries = EntriesOf(dir_.path());
  for (const int signal : {SIGINT, SIGTERM}) {
    const StopFlag stop;
    model::ConvertOptions options;
    options.from = dir_ / "m";
    options.to = dir_ / "out";
    size_t during = 0;
    options.cancelled = [&] {
      during = EntriesOf(dir_.path());
      std::raise(signal);
      return StopFlag::IsSet();
    };
    const absl::Status status = model::ConvertModel(options).status();
    EXPECT_EQ(base::ReasonOf(status), base::Reason::kCancelled) << status;
    EXPECT_EQ(during, entries + 1);
    EXPECT_EQ(EntriesOf(dir_.path()), entries);
  }
}

// 2.6 GB take long enough that the signal comes first.
TEST(InitProcess, ASignalLeavesNoPartialDirectory) {
  for (const int signal : {SIGINT, SIGTERM}) {
    const test_support::TempDir dir;
    const test_support::TempDir logs;
    test_support::ChildProcess init(
        {"expertmesh", "model", "init", "--preset", "bench-1b", "--out", dir / "m"}, logs / "log");
    const std::string aside = dir / ("m.partial-" + std::to_string(init.pid()));
    // The directory, then its first file: the watch needs the folder.
    ASSERT_TRUE(test_support::WaitForFile(aside, seconds(60)).has_value());
    ASSERT_TRUE(test_support::WaitForFile(aside + "/model.safetensors", seconds(60)).has_value());
    init.Signal(signal);
    EXPECT_EQ(init.Wait(seconds(60)), 1) << init.Log();
    EXPECT_EQ(EntriesOf(dir.path()), 0u);
    EXPECT_NE(init.Log().find("stopped; nothing is left behind"), std::string::npos) << init.Log();
  }
}

}  // namespace
}  // namespace expertmesh::cli

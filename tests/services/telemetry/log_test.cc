#include "services/telemetry/log.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace expertmesh::telemetry {
namespace {

using testing::HasSubstr;
using testing::MatchesRegex;

std::string Logged(const std::string& level, const std::function<void()>& body) {
  testing::internal::CaptureStderr();
  InitLogging("pool-0-a", level);
  body();
  spdlog::default_logger()->flush();
  return testing::internal::GetCapturedStderr();
}

TEST(Log, OneLineWithUtcTimeLevelNameAndPid) {
  const std::string text = Logged("info", [] { spdlog::info("loaded {} experts", 16); });
  EXPECT_THAT(text, MatchesRegex("[0-9]+-[0-9]+-[0-9]+T[0-9]+:[0-9]+:[0-9]+\\.[0-9]+Z info "
                                 "pool-0-a\\[[0-9]+\\] loaded 16 experts\n"));
}

TEST(Log, AMessageCannotForgeALine) {
  const std::string text = Logged("info", [] { spdlog::info("name {}", "x\n2026 error y\r\x7f"); });
  EXPECT_THAT(text, HasSubstr("name x\\x0a2026 error y\\x0d\\x7f\n"));
  EXPECT_EQ(std::count(text.begin(), text.end(), '\n'), 1);
}

TEST(Log, LevelsFilterAndAnUnknownOneIsInfo) {
  const auto body = [] {
    spdlog::debug("d");
    spdlog::info("i");
    spdlog::warn("w");
  };
  EXPECT_THAT(Logged("warn", body), MatchesRegex("[^\n]* w\n"));
  EXPECT_EQ(Logged("off", body), "");
  EXPECT_THAT(Logged("loud", body), MatchesRegex("[^\n]*loud[^\n]*\n[^\n]* i\n[^\n]* w\n"));
}

}  // namespace
}  // namespace expertmesh::telemetry

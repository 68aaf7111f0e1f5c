#include "services/lifecycle/status_page.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <boost/json.hpp>

namespace expertmesh::lifecycle {
namespace {

namespace json = boost::json;

TEST(StatusPage, HasEverythingUnderItsKey) {
  const absl::Time started = absl::FromUnixSeconds(1'000'000'000);
  const StatusSnapshot snapshot{.name = "pool-0-a",
                                .role = "expert-worker",
                                .incarnation = 0xABCDEF,
                                .not_ready_reason = "experts 16-31 are not hosted",
                                .draining = true,
                                .started = started,
                                .now = started + absl::Seconds(90),
                                .peers = {{{"router", "r\"1", "127.0.0.1:7", "down", "refused"},
                                           started + absl::Seconds(60)}},
                                .sections = {{"slice", "{\"experts\":[0,1]}"}, {"broken", "{"}}};
  const json::object page = json::parse(StatusPage(snapshot)).as_object();
  EXPECT_EQ(page.at("name"), "pool-0-a");
  EXPECT_EQ(page.at("role"), "expert-worker");
  EXPECT_EQ(page.at("pid").to_number<int64_t>(), getpid());
  EXPECT_EQ(page.at("incarnation"), "0000000000abcdef");
  EXPECT_FALSE(page.at("version").as_string().empty());
  EXPECT_EQ(page.at("ready"), false);
  EXPECT_EQ(page.at("reason"), "experts 16-31 are not hosted");
  EXPECT_EQ(page.at("draining"), true);
  EXPECT_EQ(page.at("started"), "2001-09-09T01:46:40+00:00");
  EXPECT_EQ(page.at("uptime_s").to_number<int64_t>(), 90);
  constexpr char kPeers[] =
      R"([{"role": "router", "name": "r\"1", "address": "127.0.0.1:7", "state": "down",
           "reason": "refused", "since": "2001-09-09T01:47:40+00:00", "since_s": 30}])";
  EXPECT_EQ(page.at("peers"), json::parse(kPeers));
  EXPECT_EQ(page.at("slice"), json::parse("{\"experts\":[0,1]}"));
  EXPECT_TRUE(page.at("broken").as_object().contains("error"));
}

TEST(AnnounceText, IsOneLineWithTheAddresses) {
  const std::string text =
      AnnounceText({.name = "gw", .role = "gateway", .incarnation = 1}, "unix:/tmp/x",
                   "127.0.0.1:9", {{"http_address", "127.0.0.1:8080"}});
  EXPECT_EQ(text.find('\n'), text.size() - 1);
  json::object expected = {{"name", "gw"},
                           {"role", "gateway"},
                           {"pid", getpid()},
                           {"incarnation", "0000000000000001"},
                           {"grpc_address", "unix:/tmp/x"},
                           {"admin_address", "127.0.0.1:9"},
                           {"http_address", "127.0.0.1:8080"}};
  EXPECT_EQ(json::parse(text), expected);
}

}  // namespace
}  // namespace expertmesh::lifecycle

#include "services/lifecycle/process.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <CLI/CLI.hpp>
#include <boost/json.hpp>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <vector>

#include "services/base/status.h"
#include "tests/services/lifecycle/http_client.h"

namespace expertmesh::lifecycle {
namespace {

namespace json = boost::json;
using testing::HasSubstr;
using testing::Not;
using testing::StartsWith;

class ProcessTest : public testing::Test {
 protected:
  std::unique_ptr<Process> StartProcess(ProcessOptions options = {}) {
    options.role = "expert-worker";
    options.log_level = "off";
    auto started = Process::Start(std::move(options), &metrics_);
    EXPECT_TRUE(started.ok()) << started.status();
    return *std::move(started);
  }
  json::object Status(const Process& process) {
    return json::parse(BodyOf(Ask(process.admin_address(), "GET", "/statusz"))).as_object();
  }

  telemetry::Metrics metrics_{"expert_worker"};
};

TEST_F(ProcessTest, ReadinessMoves) {
  const auto process = StartProcess();
  const std::string address = process->admin_address();
  EXPECT_EQ(BodyOf(Ask(address, "GET", "/livez")), "alive\n");
  EXPECT_FALSE(process->ready());
  EXPECT_THAT(Ask(address, "GET", "/readyz"), StartsWith("HTTP/1.1 503 "));
  EXPECT_EQ(BodyOf(Ask(address, "GET", "/readyz")), "not ready: starting\n");

  process->SetReady();
  EXPECT_TRUE(process->ready());
  EXPECT_THAT(Ask(address, "GET", "/readyz"), StartsWith("HTTP/1.1 200 "));
  EXPECT_EQ(BodyOf(Ask(address, "GET", "/readyz")), "ready\n");
  EXPECT_THAT(metrics_.Serialize(), HasSubstr("\nexpertmesh_expert_worker_ready 1\n"));

  process->SetNotReady("no epoch yet");
  EXPECT_EQ(process->not_ready_reason(), "no epoch yet");
  EXPECT_EQ(BodyOf(Ask(address, "GET", "/readyz")), "not ready: no epoch yet\n");
  EXPECT_EQ(Status(*process).at("reason"), "no epoch yet");
  EXPECT_THAT(metrics_.Serialize(), HasSubstr("\nexpertmesh_expert_worker_ready 0\n"));
  process->SetNotReady("");
  EXPECT_FALSE(process->ready());
}

TEST_F(ProcessTest, ServesFourPagesAndNothingElse) {
  const auto process = StartProcess();
  const std::string address = process->admin_address();
  const std::string metrics = Ask(address, "GET", "/metrics");
  EXPECT_THAT(metrics, HasSubstr("Content-Type: text/plain; version=0.0.4; charset=utf-8\r\n"));
  EXPECT_THAT(metrics, HasSubstr("\nexpertmesh_expert_worker_rows_total 0\n"));
  EXPECT_THAT(Ask(address, "GET", "/statusz"), HasSubstr("Content-Type: application/json\r\n"));
  for (const char* path : {"/", "/livez/", "/drain", "/debug", "//metrics", "/../metrics"}) {
    EXPECT_THAT(Ask(address, "GET", path), StartsWith("HTTP/1.1 404 ")) << path;
  }
  EXPECT_THAT(Ask(address, "POST", "/metrics"), StartsWith("HTTP/1.1 405 "));
}

TEST_F(ProcessTest, CountsMalformedRequests) {
  const auto process = StartProcess();
  TestConnection connection(process->admin_address());
  connection.Send("nonsense\r\n\r\n");
  EXPECT_THAT(connection.ReadAll(), StartsWith("HTTP/1.1 400 "));
  EXPECT_THAT(metrics_.Serialize(), HasSubstr("bad_input_total{reason=\"INVALID_ARGUMENT\"} 1\n"));
}

TEST_F(ProcessTest, NameAndIncarnation) {
  const auto process = StartProcess();
  const auto other = StartProcess({.name = "pool-1-b"});
  EXPECT_NE(process->incarnation(), 0u);
  EXPECT_NE(process->incarnation(), other->incarnation());
  EXPECT_EQ(process->options().name, "expert-worker-" + std::to_string(getpid()));
  EXPECT_EQ(Status(*other).at("name"), "pool-1-b");
}

TEST_F(ProcessTest, PeersComeAndGo) {
  const auto process = StartProcess();
  process->SetPeer({"router", "r1", "127.0.0.1:1", "down", "refused"});
  process->SetPeer({"router", "r2", "127.0.0.1:2", "up", ""});
  EXPECT_THAT(metrics_.Serialize(), HasSubstr("peer_up{peer=\"r1\",role=\"router\"} 0\n"));
  const json::value since = Status(*process).at("peers").at(0).at("since");

  process->SetPeer({"router", "r1", "127.0.0.1:1", "down", "timed out"});  // same state: same since
  const json::array peers = Status(*process).at("peers").as_array();
  ASSERT_EQ(peers.size(), 2u);
  EXPECT_EQ(peers[0].at("since"), since);
  EXPECT_EQ(peers[0].at("reason"), "timed out");
  EXPECT_EQ(peers[1].at("state"), "up");

  process->SetPeer({"router", "r1", "127.0.0.1:1", "up", ""});
  EXPECT_THAT(metrics_.Serialize(), HasSubstr("peer_up{peer=\"r1\",role=\"router\"} 1\n"));
  process->RemovePeer("router", "r1");
  process->RemovePeer("router", "unknown");
  EXPECT_THAT(metrics_.Serialize(), Not(HasSubstr("\"r1\"")));
  EXPECT_EQ(Status(*process).at("peers").as_array().size(), 1u);
}

TEST_F(ProcessTest, StatusSectionsAreAskedEachTimeUntilRemoved) {
  const auto process = StartProcess();
  int calls = 0;
  process->AddStatusSection("slice", [&] { return "{\"calls\":" + std::to_string(++calls) + "}"; });
  EXPECT_EQ(Status(*process).at("slice").at("calls"), 1);
  EXPECT_EQ(Status(*process).at("slice").at("calls"), 2);
  process->RemoveStatusSection("slice");
  EXPECT_FALSE(Status(*process).contains("slice"));
  EXPECT_EQ(calls, 2);
}

TEST_F(ProcessTest, AnnounceReplacesTheFileAsAWhole) {
  const std::filesystem::path folder =
      std::filesystem::path(testing::TempDir()) / ("announce-" + std::to_string(getpid()));
  std::filesystem::create_directories(folder);
  const std::filesystem::path file = folder / "worker.json";
  std::ofstream(file) << "left by an earlier process";
  const auto process = StartProcess({.announce_file = file.string()});
  ASSERT_TRUE(process->Announce("127.0.0.1:50051", {{"http_address", "127.0.0.1:8080"}}).ok());

  std::stringstream text;
  text << std::ifstream(file).rdbuf();
  const json::object announced = json::parse(text.str()).as_object();
  EXPECT_EQ(announced.at("grpc_address"), "127.0.0.1:50051");
  EXPECT_EQ(announced.at("http_address"), "127.0.0.1:8080");
  EXPECT_EQ(announced.at("admin_address").as_string(), process->admin_address());
  EXPECT_EQ(announced.at("role"), "expert-worker");
  EXPECT_EQ(announced.at("pid").to_number<int64_t>(), getpid());
  const auto files = std::distance(std::filesystem::directory_iterator(folder),
                                   std::filesystem::directory_iterator());
  EXPECT_EQ(files, 1) << "the temporary file stayed";
  std::filesystem::remove_all(folder);

  EXPECT_EQ(base::ReasonOf(process->Announce("x")), base::Reason::kInvalidArgument);
  EXPECT_TRUE(StartProcess()->Announce("x").ok());  // without a file there is nothing to write
}

TEST_F(ProcessTest, DrainTurnsReadinessOffThenRunsTheCallbacksInOrder) {
  const auto process = StartProcess();
  std::vector<std::string> events;  // the drain thread's until WaitForShutdown returns
  process->OnDrain(
      [&] { events.push_back(BodyOf(Ask(process->admin_address(), "GET", "/readyz"))); });
  process->OnDrain([&] {
    events.push_back("second");
    process->OnDrain([&] { events.push_back("third, added while draining"); });
  });
  process->AddStatusSection("work", [] { return std::string("{}"); });
  process->SetReady();
  process->RequestShutdown("test");
  process->WaitForShutdown();
  EXPECT_EQ(events, (std::vector<std::string>{"not ready: draining\n", "second",
                                              "third, added while draining"}));
  EXPECT_TRUE(process->draining());
  process->SetReady();
  EXPECT_EQ(process->not_ready_reason(), "draining");
  EXPECT_THAT(metrics_.Serialize(), HasSubstr("\nexpertmesh_expert_worker_draining 1\n"));
  EXPECT_EQ(Status(*process).at("draining"), true);
  EXPECT_FALSE(Status(*process).contains("work"));  // its owner may be gone by now
  process->OnDrain([&] { events.push_back("late"); });
  EXPECT_EQ(events.back(), "late");
}

TEST_F(ProcessTest, ASignalReachesEveryProcessAndTheNextOnesStartAfresh) {
  for (const int signal : {SIGTERM, SIGINT}) {
    const auto first = StartProcess();
    const auto second = StartProcess();
    raise(signal);
    first->WaitForShutdown();
    second->WaitForShutdown();
    EXPECT_TRUE(first->draining());
    EXPECT_TRUE(second->draining());
  }
}

TEST(ProcessAddress, AllInterfacesBecomeTheAdvertisedHost) {
  telemetry::Metrics metrics("router");
  const auto process = Process::Start({.advertise_host = "10.0.0.7", .log_level = "off"}, &metrics);
  ASSERT_TRUE(process.ok());
  EXPECT_EQ((*process)->Advertised("0.0.0.0:7000"), "10.0.0.7:7000");
  EXPECT_EQ((*process)->Advertised("[::]:7000"), "10.0.0.7:7000");
  EXPECT_EQ((*process)->Advertised("127.0.0.1:7000"), "127.0.0.1:7000");
  EXPECT_EQ((*process)->Advertised("unix:/tmp/a"), "unix:/tmp/a");
  telemetry::Metrics others("router");
  const auto ipv6 = Process::Start({.advertise_host = "fd00::7", .log_level = "off"}, &others);
  EXPECT_EQ((*ipv6)->Advertised("0.0.0.0:7000"), "[fd00::7]:7000");
  telemetry::Metrics none("router");
  const auto silent = Process::Start({.log_level = "off"}, &none);
  EXPECT_EQ((*silent)->Advertised("0.0.0.0:7000"), "0.0.0.0:7000");
}

TEST_F(ProcessTest, BadAdminAddressIsAnError) {
  const auto started = Process::Start({.admin_listen = "nowhere", .log_level = "off"}, &metrics_);
  EXPECT_EQ(base::ReasonOf(started.status()), base::Reason::kInvalidArgument);
}

TEST(ProcessFlags, ParseIntoTheOptions) {
  ProcessOptions options;
  CLI::App app;
  AddProcessFlags(app, options);
  app.parse(
      "--name w1 --admin-listen 0.0.0.0:9 --announce-file /x --drain-seconds 3 --log-level warn");
  EXPECT_EQ(options.name, "w1");
  EXPECT_EQ(options.admin_listen, "0.0.0.0:9");
  EXPECT_EQ(options.announce_file, "/x");
  EXPECT_EQ(options.drain_seconds, 3);
  EXPECT_EQ(options.log_level, "warn");
  EXPECT_THROW(app.parse("--log-level loud"), CLI::ParseError);
  EXPECT_THROW(app.parse("--drain-seconds -1"), CLI::ParseError);
}

}  // namespace
}  // namespace expertmesh::lifecycle

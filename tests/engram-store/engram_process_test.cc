#include "engram-store/engram_process.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <condition_variable>
#include <csignal>
#include <filesystem>
#include <mutex>
#include <thread>

#include "expertmesh/router/v1/router.grpc.pb.h"
#include "services/base/crc32c.h"
#include "services/rpc/channel.h"
#include "services/rpc/identity.h"
#include "services/rpc/status.h"
#include "tests/engram-store/store_fixture.h"
#include "tests/services/lifecycle/http_client.h"
#include "tests/support/child_process.h"
#include "tests/support/temp_dir.h"
#include "tests/support/tiny_checkpoint.h"

namespace expertmesh::engram_store {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using test_support::ChildProcess;
using test_support::TempDir;
using testing::HasSubstr;

/// As much of a router as the store needs: hears who registers and answers with an empty view.
class ListeningRouter final : public router::v1::RouterService::Service {
 public:
  grpc::Status Register(grpc::ServerContext* /*context*/,
                        grpc::ServerReaderWriter<router::v1::RegisterResponse,
                                                 router::v1::RegisterRequest>* stream) override {
    router::v1::RegisterRequest request;
    while (stream->Read(&request)) {
      if (request.has_hello()) stream->Write({});
      std::lock_guard lock(mutex_);
      if (request.has_hello()) hello_ = request.hello();
      if (request.has_report()) report_ = request.report();
      heard_.notify_all();
    }
    return grpc::Status::OK;
  }

  /// The Hello, once a report with that readiness has come.
  router::v1::Hello WaitForReady(bool ready) {
    std::unique_lock lock(mutex_);
    EXPECT_TRUE(heard_.wait_for(
        lock, seconds(20), [&] { return !hello_.name().empty() && report_.ready() == ready; }));
    return hello_;
  }

 private:
  std::mutex mutex_;
  std::condition_variable heard_;
  router::v1::Hello hello_;    // guarded by mutex_
  router::v1::Report report_;  // guarded by mutex_
};

class EngramProcessTest : public testing::Test {
 protected:
  absl::StatusOr<std::unique_ptr<EngramProcess>> Start(StoreOptions options) {
    if (options.data_directory.empty()) options.data_directory = dir_ / "data";
    return EngramProcess::Start(options, *process_, metrics_);
  }

  TempDir dir_;
  telemetry::Metrics metrics_{"engram_store"};
  std::unique_ptr<lifecycle::Process> process_ = *lifecycle::Process::Start(
      {.name = "s0", .role = "engram-store", .log_level = "off"}, &metrics_);
};

TEST_F(EngramProcessTest, ServesAndRegisters) {
  const std::string model = dir_ / "tiny";
  test_support::WriteTinyModel(model, test_support::AwkwardConfig());
  ListeningRouter router;
  const auto server = *rpc::Server::Start({}, {&router});
  const auto store = Start({.model_directory = model, .routers = {server->address()}});
  ASSERT_TRUE(store.ok()) << store.status();
  EXPECT_TRUE(process_->ready());
  const router::v1::Hello hello = router.WaitForReady(true);
  EXPECT_EQ(hello.role(), common::v1::ROLE_ENGRAM_STORE);
  EXPECT_EQ(hello.name(), "s0");
  EXPECT_EQ(hello.incarnation(), process_->incarnation());
  EXPECT_EQ(hello.address(), (*store)->address());
  EXPECT_EQ(hello.admin_address(), process_->admin_address());
  EXPECT_EQ(hello.model().model(), "tiny");
  EXPECT_EQ(hello.model().revision().size(), 64u);

  const std::string page =
      lifecycle::BodyOf(lifecycle::Ask(process_->admin_address(), "GET", "/statusz"));
  EXPECT_THAT(page, HasSubstr("\"model\":\"tiny\""));
  EXPECT_THAT(page, HasSubstr("\"versions\":[]"));  // a model without a memory
  EXPECT_THAT(page, HasSubstr(hello.model().revision()));
  (*store)->Stop(milliseconds(0));
  server->Shutdown(milliseconds(0));
}

TEST_F(EngramProcessTest, ABrokenModelDirectoryIsAnError) {
  const auto store = Start({.model_directory = dir_ / "nothing"});
  EXPECT_FALSE(store.ok());
  EXPECT_FALSE(process_->ready());
}

// The binary: announce file, lock, clean stop, and the data still there.
TEST(EngramBinaryTest, StopsCleanlyAndStartsAgain) {
  const TempDir dir;
  const std::string data = dir / "data";
  for (const std::string round : {"1", "2"}) {
    const std::string announce = dir / ("announce-" + round);
    ChildProcess store({"expertmesh-engram-store", "--data", data, "--announce-file", announce},
                       dir / ("log-" + round));
    const auto announced = test_support::WaitForFile(announce, milliseconds(20'000));
    ASSERT_TRUE(announced) << store.Log();
    EXPECT_THAT(*announced, HasSubstr("\"role\":\"engram-store\""));

    ChildProcess second({"expertmesh-engram-store", "--data", data}, dir / ("second-" + round));
    EXPECT_EQ(second.Wait(milliseconds(20'000)), 1);
    EXPECT_THAT(second.Log(), HasSubstr("expertmesh-engram-store: --data " + data +
                                        ": another process uses this database"));
    store.Signal(SIGTERM);
    EXPECT_EQ(store.Wait(milliseconds(10'000)), 0) << store.Log();
  }
}

/// A store as a process, to be killed.
class KillableStore {
 public:
  KillableStore(const TempDir& dir, const std::string& data, const std::string& model, int round)
      : announce_(dir / ("announce-" + std::to_string(round))),
        process_({"expertmesh-engram-store", "--data", data, "--model", model,
                  "--served-model-name", "tiny", "--announce-file", announce_},
                 dir / ("log-" + std::to_string(round))) {}

  ChildProcess& process() { return process_; }
  /// The stub of the running store; null if it ended before it served.
  std::unique_ptr<engram::v1::EngramService::Stub> Serve() {
    const auto announced = test_support::WaitForFile(announce_, milliseconds(60'000));
    if (!announced) return nullptr;
    const std::string mark = "\"grpc_address\":\"";
    const size_t at = announced->find(mark) + mark.size();
    return engram::v1::EngramService::NewStub(
        rpc::MakeChannel(announced->substr(at, announced->find('"', at) - at)));
  }
  /// Looks until `holds`, or the process has ended. False for the latter.
  template <class Condition>
  bool Until(const Condition& holds) {
    while (!holds()) {
      if (!process_.running()) return holds();
      std::this_thread::yield();
    }
    return true;
  }
  void Kill() {
    process_.Signal(SIGKILL);
    EXPECT_EQ(process_.Wait(milliseconds(20'000)), 128 + SIGKILL);
  }

 private:
  const std::string announce_;
  ChildProcess process_;
};

engram::v1::LookupRowsResponse LookUp(engram::v1::EngramService::Stub& stub,
                                      const std::vector<uint64_t>& ids) {
  engram::v1::LookupRowsRequest request;
  request.mutable_model()->set_model("tiny");
  request.set_layer(1);
  request.mutable_row_ids()->Add(ids.begin(), ids.end());
  engram::v1::LookupRowsResponse response;
  grpc::ClientContext context;
  rpc::PrepareClient(context, {}, seconds(20));
  const absl::Status status = rpc::FromGrpcStatus(stub.LookupRows(&context, request, &response));
  EXPECT_TRUE(status.ok()) << status;
  return response;
}

// Killed at many points of an import: each time the next start imports, and serves the same rows.
TEST(EngramKillTest, AKilledImportBeginsAnew) {
  const TempDir dir;
  const std::string model = dir / "model";
  WriteMemoryModel(model, 1, false, 30'000);
  const std::vector<uint64_t> ids = SomeIds(100'000);
  const std::string rows = CheckpointRows(model, 1, ids);
  const auto exists = [&](const std::string& path) { return std::filesystem::exists(path); };
  std::string version;
  for (int round = 0; round < 8; ++round) {
    const std::string data = dir / ("data-" + std::to_string(round));
    {
      KillableStore store(dir, data, model, 2 * round);
      const std::string import = data + "/import.partial-" + std::to_string(store.process().pid());
      const bool reached = store.Until([&]() -> bool {
        if (round == 0) return exists(data + "/CURRENT");
        if (round == 1) return exists(import);
        if (round < 6) {  // after 10, 30, 60 and 100 % of the rows
          const int lines[] = {1, 3, 6, 10};
          const std::string log = store.process().Log();
          int seen = 0;
          for (size_t at = 0; (at = log.find("importing tables of", at)) != std::string::npos;
               ++at) {
            ++seen;
          }
          return seen >= lines[round - 2];
        }
        return exists(data + "/segments") &&
               (round == 6 || !std::filesystem::is_empty(data + "/segments"));
      });
      EXPECT_TRUE(reached) << store.process().Log();
      store.Kill();
    }
    KillableStore again(dir, data, model, 2 * round + 1);
    const auto stub = again.Serve();
    ASSERT_NE(stub, nullptr) << again.process().Log();
    const auto answer = LookUp(*stub, ids);
    EXPECT_TRUE(answer.rows() == rows) << "round " << round;
    if (version.empty()) version = answer.version();
    EXPECT_EQ(answer.version(), version);
    for (const auto& entry : std::filesystem::recursive_directory_iterator(data)) {
      EXPECT_EQ(entry.path().string().find("partial"), std::string::npos) << entry.path();
    }
  }
}

// Killed while it publishes: the old version is the current one, and publishing again works.
TEST(EngramKillTest, AKilledPublishLeavesTheOldVersion) {
  const TempDir dir;
  const std::string model = dir / "model";
  WriteMemoryModel(model, 1, false, 30'000);
  const std::string data = dir / "data";
  std::string old_version;
  engram::v1::PublishRequest publish;
  publish.mutable_model()->set_model("tiny");
  for (int round = 0; round < 3; ++round) {
    KillableStore store(dir, data, model, round);
    const auto stub = store.Serve();
    ASSERT_NE(stub, nullptr) << store.process().Log();
    const auto before = LookUp(*stub, {0});
    if (old_version.empty()) old_version = before.version();
    EXPECT_EQ(before.version(), old_version);
    EXPECT_EQ(before.rows(), CheckpointRows(model, 1, {0}));
    engram::v1::UpdateRowsRequest update;
    *update.mutable_model() = publish.model();
    update.set_layer(1);
    update.add_row_ids(0);
    update.set_rows(std::string(128, '\0'));
    update.set_rows_crc32c(
        base::Crc32c(std::as_bytes(std::span(update.rows().data(), update.rows().size()))));
    engram::v1::UpdateRowsResponse draft;
    grpc::ClientContext updating;
    rpc::PrepareClient(updating, {}, seconds(20));
    ASSERT_TRUE(stub->UpdateRows(&updating, update, &draft).ok());
    publish.set_version(draft.version().version());
    engram::v1::PublishResponse published;
    grpc::ClientContext publishing;
    rpc::PrepareClient(publishing, {}, seconds(60));
    if (round == 2) {
      ASSERT_TRUE(stub->Publish(&publishing, publish, &published).ok());
      EXPECT_EQ(LookUp(*stub, {0}).rows(), std::string(128, '\0'));
      break;
    }
    std::thread call([&] { stub->Publish(&publishing, publish, &published); });
    const std::string partial = data + "/segments/" + publish.version() + ".partial-" +
                                std::to_string(store.process().pid());
    const std::string wanted = round == 0 ? partial : partial + "/layer-00003.seg";
    EXPECT_TRUE(store.Until([&] { return std::filesystem::exists(wanted); }));
    store.Kill();
    call.join();
  }
}

}  // namespace
}  // namespace expertmesh::engram_store

#include "engram-store/engram_process.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <condition_variable>
#include <csignal>
#include <mutex>

#include "expertmesh/router/v1/router.grpc.pb.h"
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
  EXPECT_THAT(page, HasSubstr("\"versions\":[]"));
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

}  // namespace
}  // namespace expertmesh::engram_store

// The memory in a store: the same bits as from tables in the worker, through updates, publishes,
// roll-backs, and stores that die.
#include <gmock/gmock.h>
#include <grpcpp/client_context.h>
#include <gtest/gtest.h>

#include <chrono>
#include <csignal>
#include <optional>
#include <thread>

#include "expertmesh/engram/v1/engram.grpc.pb.h"
#include "services/base/crc32c.h"
#include "services/base/status.h"
#include "services/rpc/channel.h"
#include "services/rpc/identity.h"
#include "services/rpc/status.h"
#include "tests/support/child_process.h"
#include "tests/support/local_mesh.h"
#include "tests/support/temp_dir.h"
#include "tests/support/tiny_model.h"

namespace expertmesh {
namespace {

using base::Reason;
using test_support::Generated;
using test_support::LocalMesh;
using test_support::MeshSpec;
namespace pb = engram::v1;

constexpr uint32_t kLayer = 1;
constexpr uint64_t kRows = 1650;  // of that layer in `tiny`
constexpr size_t kWidth = 32;

/// `transport` is how the worker reads the store: its files (auto), or over gRPC.
MeshSpec Spec(const std::string& transport = "auto") {
  MeshSpec spec;
  spec.model = test_support::TinyModel("tiny");
  spec.slices = {"0-15", "16-23", "24-31"};
  spec.engram = true;
  spec.attention_flags = {"--memory-cache-rows", "500", "--no-prefix-cache", "--engram-transport",
                          transport};
  return spec;
}

inference::v1::GenerateRequest Request(uint32_t first_token, uint32_t count,
                                       const std::string& version = "") {
  inference::v1::GenerateRequest request;
  auto* ids = request.add_segments()->mutable_tokens();
  for (uint32_t i = 0; i < 40; ++i) ids->add_ids((first_token + 13 * i * i) % 512);
  request.mutable_sampling()->set_temperature(0.8f);
  request.mutable_sampling()->set_seed(first_token);
  request.set_max_tokens(count);
  request.set_engram_version(version);
  request.mutable_debug()->set_ignore_eos(true);
  request.mutable_debug()->set_return_logits_hash(true);
  request.mutable_debug()->set_return_state_hash(true);
  return request;
}

class Client {
 public:
  explicit Client(const LocalMesh& mesh, const std::string& store = "engram")
      : attention_(
            inference::v1::InferenceService::NewStub(rpc::MakeChannel(mesh.Address("attention")))),
        store_(pb::EngramService::NewStub(rpc::MakeChannel(mesh.Address(store)))) {}

  Generated Run(const inference::v1::GenerateRequest& request) {
    return test_support::Generate(*attention_, request);
  }
  inference::v1::InferenceService::Stub& attention() { return *attention_; }

  template <class Request, class Response>
  void Ask(grpc::Status (pb::EngramService::Stub::*method)(grpc::ClientContext*, const Request&,
                                                           Response*),
           Request& request, Response& response) {
    grpc::ClientContext context;
    rpc::PrepareClient(context, {}, std::chrono::seconds(30));
    request.mutable_model()->set_model("tiny");
    const absl::Status status =
        rpc::FromGrpcStatus((store_.get()->*method)(&context, request, &response));
    ASSERT_TRUE(status.ok()) << status;
  }
  std::string Current() {
    pb::ListVersionsRequest request;
    pb::ListVersionsResponse response;
    Ask(&pb::EngramService::Stub::ListVersions, request, response);
    return response.versions_size() == 0 ? "" : response.versions(0).version();
  }
  /// Publishes a version with every row of a layer changed; its name.
  std::string PublishChanged(float value) {
    pb::UpdateRowsRequest update;
    update.set_layer(kLayer);
    std::vector<float> rows(kRows * kWidth);
    for (size_t i = 0; i < rows.size(); ++i) rows[i] = value * static_cast<float>(i % 7);
    for (uint64_t id = 0; id < kRows; ++id) update.add_row_ids(id);
    update.set_rows(rows.data(), rows.size() * sizeof(float));
    update.set_rows_crc32c(
        base::Crc32c(std::as_bytes(std::span(update.rows().data(), update.rows().size()))));
    pb::UpdateRowsResponse draft;
    Ask(&pb::EngramService::Stub::UpdateRows, update, draft);
    pb::PublishRequest publish;
    publish.set_version(draft.version().version());
    pb::PublishResponse published;
    Ask(&pb::EngramService::Stub::Publish, publish, published);
    return publish.version();
  }
  void RollBack() {
    pb::RollbackRequest request;
    pb::RollbackResponse response;
    Ask(&pb::EngramService::Stub::Rollback, request, response);
  }
  /// Whether the store comes to hold that many leases. A lane lets go of its own after its end.
  bool LeasesBecome(uint32_t expected) {
    const auto deadline = std::chrono::steady_clock::now() + test_support::kPatience;
    uint32_t leases = expected + 1;
    while (leases != expected && std::chrono::steady_clock::now() < deadline) {
      pb::ListVersionsRequest request;
      pb::ListVersionsResponse response;
      Ask(&pb::EngramService::Stub::ListVersions, request, response);
      leases = 0;
      for (const auto& version : response.versions()) leases += version.leases();
    }
    return leases == expected;
  }

 private:
  std::unique_ptr<inference::v1::InferenceService::Stub> attention_;
  std::unique_ptr<pb::EngramService::Stub> store_;
};

/// A lane that is read token by token, so that things can happen between.
class SlowReader {
 public:
  SlowReader(Client& client, const inference::v1::GenerateRequest& request) {
    context_.set_deadline(std::chrono::system_clock::now() + std::chrono::minutes(5));
    reader_ = client.attention().Generate(&context_, request);
  }
  /// Up to `tokens` more tokens. False at the end of the answer.
  bool Read(size_t tokens) {
    inference::v1::GenerateResponse response;
    while (tokens > 0) {
      if (!reader_->Read(&response)) return false;
      if (response.has_started()) version_ = response.started().engram_version();
      if (response.has_token()) {
        hashes_.push_back(response.token().logits_hash());
        --tokens;
      }
    }
    return true;
  }
  absl::Status Finish() {
    while (Read(1)) {
    }
    return rpc::FromGrpcStatus(reader_->Finish());
  }
  const std::vector<uint64_t>& hashes() const { return hashes_; }
  const std::string& version() const { return version_; }

 private:
  grpc::ClientContext context_;
  std::unique_ptr<grpc::ClientReader<inference::v1::GenerateResponse>> reader_;
  std::vector<uint64_t> hashes_;
  std::string version_;
};

/// Kills and starts a store; back when the attention worker has the new one.
void Replace(LocalMesh& mesh, const std::string& store) {
  mesh.process(store).Signal(SIGKILL);
  ASSERT_TRUE(mesh.WaitView([&](const router::v1::View& view) {
    return std::none_of(view.members().begin(), view.members().end(),
                        [&](const auto& member) { return member.hello().name() == store; });
  }));
  mesh.Restart(store);
  ASSERT_TRUE(mesh.WaitReady());
  ASSERT_TRUE(mesh.WaitPeer("attention", store));
}

void ExpectSame(const Generated& a, const Generated& b) {
  EXPECT_TRUE(a.status.ok()) << a.status;
  EXPECT_TRUE(b.status.ok()) << b.status;
  EXPECT_EQ(a.tokens, b.tokens);
  EXPECT_EQ(a.logits_hashes, b.logits_hashes);
  EXPECT_EQ(a.state_hashes, b.state_hashes);
}

TEST(MeshMemoryTest, RowsOfAStoreGiveTheSameBitsAsLocalTables) {
  for (const auto& [profile, transport] : {std::pair{"bf16", "grpc"},
                                           {"exact-f32", "grpc"},
                                           {"bf16", "auto"},
                                           {"exact-f32", "auto"}}) {
    MeshSpec spec = Spec(transport);
    spec.profile = profile;
    LocalMesh mesh(spec);
    MeshSpec alone;
    alone.model = spec.model;
    alone.profile = profile;
    LocalMesh local(alone);  // all in one process, tables of the checkpoint
    ASSERT_TRUE(mesh.WaitReady());
    ASSERT_TRUE(local.WaitReady());
    Client with_store(mesh);
    Client without(local);
    for (uint32_t first : {1u, 77u, 300u}) {
      ExpectSame(with_store.Run(Request(first, 64)), without.Run(Request(first, 64)));
    }
    const std::string admin = mesh.AdminAddress("attention");
    const std::string page = test_support::HttpGet(admin, "/metrics");
    const std::string status = test_support::HttpGet(admin, "/statusz");
    const bool mapped = std::string(transport) == "auto";
    for (const std::string result : {"hit", "miss", "mapped"}) {
      const bool none =
          page.find("memory_rows_total{result=\"" + result + "\"} 0\n") != std::string::npos;
      EXPECT_EQ(none, mapped != (result == "mapped")) << result;
    }
    EXPECT_THAT(status, testing::HasSubstr(std::string("\"mapped_versions\":[") +
                                           (mapped ? "\"" + with_store.Current() : "]")));
  }
}

void ExpectLanesKeepTheirVersions(const std::string& transport) {
  MeshSpec spec = Spec(transport);
  spec.attention_flags.insert(spec.attention_flags.end(),
                              {"--expert-timeout-ms", "300000", "--expert-wait-ms", "300000"});
  LocalMesh mesh(spec);
  ASSERT_TRUE(mesh.WaitReady());
  Client client(mesh);
  const std::string first = client.Current();
  const Generated old_run = client.Run(Request(5, 300));
  ASSERT_TRUE(old_run.status.ok()) << old_run.status;

  SlowReader running(client, Request(5, 300));
  ASSERT_TRUE(running.Read(3));
  EXPECT_EQ(running.version(), first);
  mesh.process("expert-0").Signal(SIGSTOP);  // the lane stands still, and so does not end
  EXPECT_TRUE(client.LeasesBecome(1));
  const std::string second = client.PublishChanged(0.25f);
  EXPECT_EQ(client.Current(), second);
  mesh.process("expert-0").Signal(SIGCONT);
  std::optional<SlowReader> later;  // beside the one that runs, in the same steps
  do {                              // the router may have given the worker up meanwhile
    later.emplace(client, Request(5, 300));
  } while (!later->Read(3) && base::ReasonOf(later->Finish()) == Reason::kExpertsUnavailable);
  EXPECT_EQ(later->version(), second);
  EXPECT_TRUE(running.Finish().ok());
  EXPECT_TRUE(later->Finish().ok());
  EXPECT_EQ(running.hashes(), old_run.logits_hashes);
  EXPECT_NE(later->hashes(), old_run.logits_hashes);
  const Generated new_run = client.Run(Request(5, 300));
  EXPECT_EQ(later->hashes(), new_run.logits_hashes);
  ExpectSame(client.Run(Request(5, 300, first)), old_run);  // by name

  client.RollBack();
  EXPECT_EQ(client.Current(), first);
  ExpectSame(client.Run(Request(5, 300)), old_run);
  ExpectSame(client.Run(Request(5, 300, second)), new_run);
  EXPECT_EQ(base::ReasonOf(client.Run(Request(5, 3, "nothing")).status),
            Reason::kEngramVersionNotFound);
}

TEST(MeshMemoryTest, ALaneKeepsTheVersionItBeganWith) { ExpectLanesKeepTheirVersions("grpc"); }
TEST(MeshMemoryTest, ALaneThatReadsFilesKeepsItsVersionToo) {
  ExpectLanesKeepTheirVersions("auto");
}

// `expertmesh engram` against the running store.
TEST(MeshMemoryTest, TheCommandLineChangesAndRollsBack) {
  LocalMesh mesh(Spec());
  ASSERT_TRUE(mesh.WaitReady());
  Client client(mesh);
  const std::string first = client.Current();
  const test_support::TempDir dir;
  std::string line = "7";
  for (size_t i = 0; i < kWidth; ++i) line += " 0.5";
  test_support::WriteFile(dir / "rows.txt", "# row, values\n" + line + "\n");
  test_support::WriteFile(dir / "short.txt", "7 0.5\n");
  int runs = 0;
  const auto run = [&](std::vector<std::string> words, int code) {
    std::vector<std::string> argv = {"expertmesh", "engram"};
    argv.insert(argv.end(), words.begin(), words.end());
    argv.insert(argv.end(), {"--store", mesh.Address("engram")});
    test_support::ChildProcess process(argv, dir / ("log-" + std::to_string(runs++)));
    EXPECT_EQ(process.Wait(test_support::kPatience), code) << process.Log();
    return process.Log();
  };
  EXPECT_THAT(run({"list"}, 0), testing::HasSubstr(first));
  const std::string update = run(
      {"update", "--layer", "1", "--input", dir / "rows.txt", "--principal", "ops", "--publish"},
      0);
  const std::string second = client.Current();
  EXPECT_NE(second, first);
  EXPECT_THAT(update, testing::HasSubstr(second));
  EXPECT_THAT(run({"rollback"}, 0), testing::HasSubstr(first));
  EXPECT_EQ(client.Current(), first);
  EXPECT_THAT(run({"publish", second.substr(0, 10)}, 0), testing::HasSubstr(second));
  EXPECT_EQ(client.Current(), second);
  EXPECT_THAT(run({"prune", "--keep", "1"}, 1), testing::HasSubstr("less than ten minutes"));
  EXPECT_THAT(run({"prune", "--keep", "1", "--force"}, 0), testing::HasSubstr(first));
  const std::string audit = run({"audit"}, 0);
  EXPECT_THAT(audit, testing::HasSubstr("anonymous/ops  update  done"));
  EXPECT_THAT(audit, testing::HasSubstr("prune  refused"));
  EXPECT_THAT(run({"update", "--layer", "1", "--input", dir / "short.txt"}, 1),
              testing::HasSubstr("expertmesh: line 1: expected a row id and 32 values"));
  EXPECT_THAT(run({"publish", "nothing"}, 1), testing::HasSubstr("no version nothing"));
}

TEST(MeshMemoryTest, OneOfTwoStoresMayDie) {
  MeshSpec spec = Spec("grpc");
  spec.engram_replicas = 2;
  spec.attention_flags.insert(spec.attention_flags.end(), {"--memory-wait-ms", "0"});
  LocalMesh mesh(spec);
  ASSERT_TRUE(mesh.WaitReady());
  Client client(mesh);
  EXPECT_EQ(Client(mesh, "engram-1").Current(), client.Current());  // imported each for itself
  const Generated whole = client.Run(Request(9, 200));
  for (const std::string victim : {"engram", "engram-1"}) {
    SlowReader running(client, Request(9, 200));
    ASSERT_TRUE(running.Read(5));
    mesh.process(victim).Signal(SIGKILL);
    const absl::Status finished = running.Finish();
    EXPECT_TRUE(finished.ok()) << finished;
    EXPECT_EQ(running.hashes(), whole.logits_hashes);
    Replace(mesh, victim);
  }
}

TEST(MeshMemoryTest, WithoutAStoreLanesEndWithTheReason) {
  MeshSpec spec = Spec();
  spec.attention_flags = {
      "--memory-cache-rows", "0",   "--memory-wait-ms", "100", "--no-prefix-cache",
      "--engram-transport",  "grpc"};
  LocalMesh mesh(spec);
  ASSERT_TRUE(mesh.WaitReady());
  Client client(mesh);
  const Generated whole = client.Run(Request(9, 100));
  SlowReader running(client, Request(9, 400));
  ASSERT_TRUE(running.Read(5));
  mesh.process("engram").Signal(SIGKILL);
  EXPECT_EQ(base::ReasonOf(running.Finish()), Reason::kEngramUnavailable);
  EXPECT_TRUE(mesh.WaitView([](const router::v1::View& view) {
    return std::none_of(view.members().begin(), view.members().end(), [](const auto& member) {
      return member.hello().role() == common::v1::ROLE_ENGRAM_STORE;
    });
  }));
  EXPECT_EQ(base::ReasonOf(client.Run(Request(9, 10)).status), Reason::kEngramUnavailable);
  mesh.Restart("engram");
  ASSERT_TRUE(mesh.WaitReady());
  Generated again = client.Run(Request(9, 100));
  while (base::ReasonOf(again.status) == Reason::kEngramUnavailable) {
    again = client.Run(Request(9, 100));  // until the worker has the view too
  }
  ExpectSame(again, whole);
}

// The files stay mapped, so a lane needs the store only to begin.
TEST(MeshMemoryTest, ALaneThatReadsFilesOutlivesTheStore) {
  LocalMesh mesh(Spec());
  ASSERT_TRUE(mesh.WaitReady());
  Client client(mesh);
  const Generated whole = client.Run(Request(9, 200));
  SlowReader running(client, Request(9, 200));
  ASSERT_TRUE(running.Read(5));
  mesh.process("engram").Signal(SIGKILL);
  mesh.process("engram").Wait(test_support::kPatience);
  const absl::Status finished = running.Finish();
  EXPECT_TRUE(finished.ok()) << finished;
  EXPECT_EQ(running.hashes(), whole.logits_hashes);
  Generated later = client.Run(Request(9, 10));
  EXPECT_EQ(base::ReasonOf(later.status), Reason::kEngramUnavailable);
}

TEST(MeshMemoryTest, AStoreThatComesBackInTimeIsWaitedFor) {
  MeshSpec spec = Spec();
  spec.attention_flags = {
      "--memory-cache-rows", "0",   "--memory-wait-ms", "60000", "--no-prefix-cache",
      "--engram-transport",  "grpc"};
  LocalMesh mesh(spec);
  ASSERT_TRUE(mesh.WaitReady());
  Client client(mesh);
  const Generated whole = client.Run(Request(9, 200));
  SlowReader running(client, Request(9, 200));
  ASSERT_TRUE(running.Read(5));
  mesh.process("engram").Signal(SIGKILL);
  mesh.process("engram").Wait(test_support::kPatience);
  mesh.Restart("engram");
  const absl::Status finished = running.Finish();
  EXPECT_TRUE(finished.ok()) << finished;
  EXPECT_EQ(running.hashes(), whole.logits_hashes);
}

}  // namespace
}  // namespace expertmesh

// Rows of real store processes, read from their files and asked for over gRPC: the same ones.
#include "attention-worker/engram_client.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <csignal>
#include <cstring>
#include <filesystem>
#include <future>

#include "services/base/crc32c.h"
#include "services/base/host_identity.h"
#include "services/base/status.h"
#include "services/rpc/channel.h"
#include "services/rpc/identity.h"
#include "services/rpc/status.h"
#include "tests/engram-store/store_fixture.h"
#include "tests/support/child_process.h"

namespace expertmesh::attention_worker {
namespace {

namespace fs = std::filesystem;
namespace pb = engram::v1;
using base::Reason;
using base::ReasonOf;
using engram_store::kModel;
using testing::HasSubstr;

constexpr uint32_t kLayer = 3;
constexpr size_t kWidth = 32;
constexpr size_t kColumns = 4;
constexpr std::chrono::seconds kPatience(60);
using Pin = std::shared_ptr<const MemoryPin>;

struct StoreProcess {
  StoreProcess(const test_support::TempDir& dir, const std::string& store,
               const std::vector<std::string>& flags = {})
      : name(store), data(dir / (store + "-data")), address("unix:" + (dir / (store + ".sock"))) {
    std::vector<std::string> argv = {"expertmesh-engram-store",
                                     "--model",
                                     dir / kModel,
                                     "--data",
                                     data,
                                     "--listen",
                                     address,
                                     "--announce-file",
                                     dir / (store + ".json")};
    argv.insert(argv.end(), flags.begin(), flags.end());
    process.emplace(argv, dir / (store + ".log"));
    EXPECT_TRUE(test_support::WaitForFile(dir / (store + ".json"), kPatience)) << process->Log();
    stub = pb::EngramService::NewStub(rpc::MakeChannel(address));
  }

  template <class Request, class Response>
  void Ask(grpc::Status (pb::EngramService::Stub::*method)(grpc::ClientContext*, const Request&,
                                                           Response*),
           Request& request, Response& response) const {
    grpc::ClientContext context;
    rpc::PrepareClient(context, {}, kPatience);
    request.mutable_model()->set_model(kModel);
    const absl::Status status =
        rpc::FromGrpcStatus((stub.get()->*method)(&context, request, &response));
    ASSERT_TRUE(status.ok()) << status;
  }
  /// Publishes a version whose row 0 of kLayer is all `value`.
  std::string Publish(float value) const {
    pb::UpdateRowsRequest update;
    update.set_layer(kLayer);
    update.add_row_ids(0);
    const std::vector<float> row(kWidth, value);
    update.set_rows(row.data(), row.size() * sizeof(float));
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
  std::string SegmentPath(const std::string& version) const {
    return data + "/segments/" + version + "/layer-00003.seg";
  }
  /// Changes a byte of a row where every mapping of the file sees it.
  void Damage(const std::string& version, uint64_t row) const {
    const int fd = open(SegmentPath(version).c_str(), O_RDWR | O_CLOEXEC);
    ASSERT_GE(fd, 0);
    const auto at = static_cast<off_t>(4096 + row * (kWidth * sizeof(float) + 4) + 5);
    char byte = 0;
    ASSERT_EQ(pread(fd, &byte, 1, at), 1);
    byte ^= 0x10;
    ASSERT_EQ(pwrite(fd, &byte, 1, at), 1);
    close(fd);
  }

  std::string name;
  std::string data;
  std::string address;
  std::optional<test_support::ChildProcess> process;
  std::unique_ptr<pb::EngramService::Stub> stub;
};

/// A worker's side: stores, and a client of them.
struct Reader {
  Reader(const std::vector<const StoreProcess*>& processes, bool map,
         std::chrono::milliseconds lease_time = std::chrono::seconds(30))
      : stores({.model = kModel,
                .revision = "",
                .worker = "w",
                .lease_time = lease_time,
                .map_segments = map}),
        client(stores, {.wait_max = base::Micros(0)}, clock, metrics) {
    std::vector<EngramStoreAddress> named;
    for (const StoreProcess* p : processes) {
      named.push_back({p->name, named.size() + 1, p->address});
    }
    stores.SetStores(named);
  }

  Pin PinOf(const std::string& version) {
    std::promise<absl::StatusOr<Pin>> pinned;
    stores.Pin(version, [&](auto pin) { pinned.set_value(std::move(pin)); });
    auto pin = pinned.get_future().get();
    EXPECT_TRUE(pin.ok()) << pin.status();
    return pin.ok() ? *pin : nullptr;
  }

  /// Rows of kLayer for lanes one after another, kColumns ids a token. NaN for tokens that failed.
  std::vector<float> Read(const std::vector<MemoryLane>& lanes, const std::vector<uint64_t>& ids) {
    model::MemoryCall call{ids.size() / kColumns, kColumns, kWidth, {{1, ids}, {kLayer, ids}}};
    client.BeginStep(lanes);
    client.Begin(call);
    std::vector<float> out(ids.size() * kWidth);
    for (const uint32_t layer : {1u, kLayer}) {
      std::fill(out.begin(), out.end(), std::nanf(""));
      std::vector<uint8_t> alive(call.row_count, 1);
      client.Finish(layer, out, alive);
      failed = std::count(alive.begin(), alive.end(), 0);
    }
    return out;
  }
  std::vector<float> Read(const Pin& pin, const std::vector<uint64_t>& ids) {
    return Read({{ids.size() / kColumns, pin}}, ids);
  }
  std::string Count(const std::string& result) const {
    const std::string page = metrics.Serialize();
    const std::string name = "memory_rows_total{result=\"" + result + "\"} ";
    const size_t at = page.find(name) + name.size();
    return page.substr(at, page.find('\n', at) - at);
  }

  base::SteadyClock clock;
  telemetry::Metrics metrics{"attention_worker"};
  EngramStores stores;
  EngramClient client;
  ptrdiff_t failed = 0;  // tokens of the last Read
};

class EngramClientTest : public testing::Test {
 protected:
  EngramClientTest() { engram_store::WriteMemoryModel(dir_ / kModel); }

  /// What the checkpoint says.
  std::vector<float> Truth(const std::vector<uint64_t>& ids) const {
    const std::string rows = engram_store::CheckpointRows(dir_ / kModel, kLayer, ids);
    std::vector<float> values(rows.size() / sizeof(float));
    std::memcpy(values.data(), rows.data(), rows.size());
    return values;
  }

  test_support::TempDir dir_;
  // Rows that lie apart, the first, and one twice; six tokens.
  const std::vector<uint64_t> ids_ = {0, 1600, 3, 3, 900, 17, 200, 1,  2,  4,  5,  6,
                                      7, 8,    9, 0, 10,  11, 12,  13, 64, 65, 66, 1234};
};

TEST_F(EngramClientTest, FilesAndCallsGiveTheSameRows) {
  const StoreProcess store(dir_, "store");
  Reader mapped({&store}, true);
  Reader asked({&store}, false);
  const Pin from_files = mapped.PinOf("");
  const Pin by_calls = asked.PinOf("");
  ASSERT_NE(from_files->mapped, nullptr);
  EXPECT_EQ(by_calls->mapped, nullptr);
  EXPECT_EQ(mapped.PinOf("")->mapped, from_files->mapped);  // one mapping of a version
  EXPECT_EQ(mapped.Read(from_files, ids_), Truth(ids_));
  EXPECT_EQ(asked.Read(by_calls, ids_), Truth(ids_));
  EXPECT_EQ(mapped.Count("mapped"), "48");
  EXPECT_EQ(mapped.Count("miss"), "0");
  EXPECT_EQ(asked.Count("mapped"), "0");
  EXPECT_EQ(asked.Count("miss"), "48");
  // Lanes of one step may differ.
  const std::vector<MemoryLane> lanes = {{1, by_calls}, {3, from_files}, {2, by_calls}};
  EXPECT_EQ(mapped.Read(lanes, ids_), Truth(ids_));
  EXPECT_EQ(mapped.Count("mapped"), "72");
  EXPECT_EQ(mapped.Count("miss"), "24");
}

TEST_F(EngramClientTest, APinKeepsItsVersionAndOutlivesTheStore) {
  StoreProcess store(dir_, "store");
  Reader reader({&store}, true);
  const Pin before = reader.PinOf("");
  const std::string second = store.Publish(0.5f);
  const Pin after = reader.PinOf("");
  ASSERT_NE(before->mapped, nullptr);
  ASSERT_NE(after->mapped, nullptr);
  EXPECT_EQ(after->version, second);
  std::vector<float> changed = Truth(ids_);
  std::fill_n(changed.begin(), kWidth, 0.5f);
  std::fill_n(changed.begin() + 15 * kWidth, kWidth, 0.5f);
  const auto expect_both = [&] {
    EXPECT_EQ(reader.Read(before, ids_), Truth(ids_));
    EXPECT_EQ(reader.Read(after, ids_), changed);
    EXPECT_EQ(reader.Count("miss"), "0");
  };
  expect_both();
  fs::remove_all(fs::path(store.SegmentPath(before->version)).parent_path());  // as a prune does
  expect_both();
  store.process->Signal(SIGKILL);
  store.process->Wait(kPatience);
  expect_both();
}

// Whatever stands at the path in place of the file that the store has open.
TEST_F(EngramClientTest, AnotherFileIsNotMappedAndCallsGoOn) {
  const StoreProcess store(dir_, "store");
  Reader first({&store}, true);
  const std::string version = first.PinOf("")->version;
  const std::string other = store.Publish(0.5f);
  const std::string path = store.SegmentPath(version);
  const std::string kept = dir_ / "kept";
  fs::rename(path, kept);
  const auto expect_calls = [&](const std::string& what) {
    Reader reader({&store}, true);
    const Pin pin = reader.PinOf(version);
    EXPECT_EQ(pin->mapped, nullptr) << what;
    EXPECT_EQ(reader.PinOf(version)->mapped, nullptr);
    EXPECT_TRUE(reader.stores.mapped_versions().empty());
    EXPECT_EQ(reader.Read(pin, ids_), Truth(ids_)) << what;
    EXPECT_EQ(reader.Count("miss"), "48");
  };
  expect_calls("no file");
  fs::copy_file(kept, path);
  expect_calls("a copy");
  fs::resize_file(path, fs::file_size(kept) - 1);
  expect_calls("a copy cut short");
  fs::copy_file(store.SegmentPath(other), path, fs::copy_options::overwrite_existing);
  expect_calls("another version");
  fs::remove(path);
  fs::create_directory(path);
  expect_calls("a folder");
  fs::remove(path);
  fs::rename(kept, path);
  Reader again({&store}, true);
  EXPECT_NE(again.PinOf(version)->mapped, nullptr);
}

TEST_F(EngramClientTest, EveryWordOfTheStoreIsHeldAgainstTheFile) {
  const StoreProcess store(dir_, "store");
  const std::string other = store.Publish(0.5f);
  pb::AcquireLeaseRequest request;
  pb::AcquireLeaseResponse lease;
  request.set_host(base::HostIdentity());
  store.Ask(&pb::EngramService::Stub::AcquireLease, request, lease);
  ASSERT_EQ(lease.segments_size(), 2);
  ASSERT_TRUE(MappedTables::Open(lease).ok());
  const auto refused = [&](auto change) {
    pb::AcquireLeaseResponse wrong = lease;
    change(wrong);
    EXPECT_FALSE(MappedTables::Open(wrong).ok()) << wrong.ShortDebugString();
  };
  refused([](auto& w) { w.mutable_segments(0)->set_inode(w.segments(0).inode() + 1); });
  refused([](auto& w) { w.mutable_segments(1)->set_device(w.segments(1).device() + 1); });
  refused([](auto& w) { w.mutable_segments(1)->set_bytes(w.segments(1).bytes() - 1); });
  refused([](auto& w) { w.mutable_segments(0)->set_path("nothing"); });
  refused([](auto& w) { w.mutable_segments()->SwapElements(0, 1); });
  refused([](auto& w) { w.mutable_segments()->RemoveLast(); });
  refused([](auto& w) { *w.add_segments() = w.segments(0); });
  refused([](auto& w) { w.set_version(std::string(64, 'a')); });
  refused([](auto& w) { w.mutable_shape()->set_width(kWidth + 1); });
  refused([](auto& w) { w.mutable_shape()->set_format(pb::ROW_FORMAT_BF16); });
  refused([](auto& w) { w.mutable_shape()->mutable_layers(1)->set_rows(7); });
  request.set_host("another");
  store.Ask(&pb::EngramService::Stub::AcquireLease, request, lease);
  EXPECT_EQ(lease.segments_size(), 0);
}

TEST_F(EngramClientTest, ADamagedRowComesFromAnotherStore) {
  const StoreProcess bad(dir_, "bad");
  const StoreProcess good(dir_, "good");
  Reader reader({&bad, &good}, true);
  const Pin pin = reader.PinOf("");
  ASSERT_NE(pin->mapped, nullptr);
  bad.Damage(pin->version, 17);
  bad.Damage(pin->version, 1234);
  EXPECT_EQ(reader.Read(pin, ids_), Truth(ids_));
  EXPECT_EQ(reader.failed, 0);
  EXPECT_EQ(reader.Count("mapped"), "46");
  EXPECT_EQ(reader.Count("miss"), "2");
  // One for the read, one for the store that answers first and has the same file.
  EXPECT_THAT(reader.metrics.Serialize(), HasSubstr("memory_retries_total 2\n"));
  EXPECT_EQ(reader.Read(pin, ids_), Truth(ids_));
  EXPECT_EQ(reader.Count("hit"), "2");  // kept meanwhile

  Reader alone({&bad}, true);
  const Pin lonely = alone.PinOf("");
  const std::vector<float> rows = alone.Read(lonely, ids_);
  EXPECT_EQ(alone.failed, 2);  // the tokens that need these rows, and no others
  EXPECT_EQ(ReasonOf(alone.client.failure(1)), Reason::kEngramChecksum);
  EXPECT_EQ(ReasonOf(alone.client.failure(5)), Reason::kEngramChecksum);
  EXPECT_TRUE(alone.client.failure(0).ok());
  const std::vector<float> truth = Truth(ids_);
  EXPECT_TRUE(std::equal(rows.begin(), rows.begin() + kColumns * kWidth, truth.begin()));
}

TEST_F(EngramClientTest, AColdStoreIsAsked) {
  const StoreProcess store(dir_, "store", {"--cold"});
  Reader reader({&store}, true);
  const Pin pin = reader.PinOf("");
  EXPECT_EQ(pin->mapped, nullptr);
  EXPECT_EQ(reader.Read(pin, ids_), Truth(ids_));
}

TEST_F(EngramClientTest, AMappingGoesSomeTimeAfterItsLastPin) {
  const StoreProcess store(dir_, "store");
  Reader reader({&store}, true, std::chrono::seconds(5));
  Pin pin = reader.PinOf("");
  EXPECT_EQ(reader.stores.mapped_versions(), std::vector<std::string>{pin->version});
  pin.reset();
  EXPECT_EQ(reader.stores.mapped_versions().size(), 1u);  // the next lane finds it
  const auto deadline = std::chrono::steady_clock::now() + kPatience;
  while (!reader.stores.mapped_versions().empty() && std::chrono::steady_clock::now() < deadline) {
    reader.stores.WaitForChange(reader.stores.generation(), std::chrono::milliseconds(20));
  }
  EXPECT_TRUE(reader.stores.mapped_versions().empty());
}

}  // namespace
}  // namespace expertmesh::attention_worker

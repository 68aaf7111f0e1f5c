#include "engram-store/engram_service.h"

#include <gmock/gmock.h>
#include <grpcpp/create_channel.h>
#include <gtest/gtest.h>

#include "model/checkpoint.h"
#include "model/config.h"
#include "services/base/crc32c.h"
#include "services/base/status.h"
#include "services/rpc/channel.h"
#include "services/rpc/identity.h"
#include "services/rpc/server.h"
#include "services/rpc/status.h"
#include "tests/engram-store/store_fixture.h"

namespace expertmesh::engram_store {
namespace {

using base::Reason;
using base::ReasonOf;
using testing::HasSubstr;
namespace pb = engram::v1;
using Stub = pb::EngramService::Stub;

uint32_t Crc(const std::string& bytes) {
  return base::Crc32c(std::as_bytes(std::span(bytes.data(), bytes.size())));
}

class EngramServiceTest : public testing::Test {
 protected:
  ~EngramServiceTest() override {
    if (server_) server_->Shutdown(std::chrono::milliseconds(0));
  }

  void Serve(bool with_model, std::vector<std::string> publishers = {}) {
    EngramTables::Options options;
    options.data_directory = dir_ / "data";
    options.publishers = std::move(publishers);
    tables_ = *EngramTables::Open(options, clock_, metrics_);
    std::unique_ptr<TokenHasher> hasher;
    if (with_model) {
      WriteMemoryModel(model_);
      revision_ = RevisionOf(model_);
      ASSERT_TRUE(tables_->Import(model_, kModel, revision_, [](uint64_t, uint64_t) {}).ok());
      hasher = std::make_unique<TokenHasher>();
      hasher->revision = revision_;
      hasher->vocab_size = 512;
      hasher->places = {{1, 0}, {3, 1}};
      hasher->hash = Hash();
    }
    service_ = std::make_unique<EngramService>(*tables_, std::move(hasher), clock_, metrics_);
    server_ = *rpc::Server::Start({}, {service_.get()});
    stub_ = pb::EngramService::NewStub(rpc::MakeChannel(server_->address()));
  }

  model::EngramHash Hash() const {
    const auto checkpoint = *model::Checkpoint::Open(model_);
    return *model::EngramHash::Load(*checkpoint, *model::LoadConfig(model_));
  }

  template <class Request, class Response>
  absl::Status Call(grpc::Status (Stub::*method)(grpc::ClientContext*, const Request&, Response*),
                    const Request& request, Response& response,
                    const std::string& principal = "me") {
    grpc::ClientContext context;
    rpc::Identity identity;
    identity.principal = principal;
    rpc::PrepareClient(context, identity, std::chrono::seconds(20));
    return rpc::FromGrpcStatus((stub_.get()->*method)(&context, request, &response));
  }
  absl::Status Rows(const pb::LookupRowsRequest& request) {
    pb::LookupRowsResponse response;
    return Call(&Stub::LookupRows, request, response);
  }
  absl::Status Tokens(const pb::LookupTokensRequest& request) {
    pb::LookupTokensResponse response;
    return Call(&Stub::LookupTokens, request, response);
  }
  pb::UpdateRowsRequest UpdateOf(const std::vector<uint64_t>& ids, float value) const {
    pb::UpdateRowsRequest request;
    request.mutable_model()->set_model(kModel);
    request.set_layer(3);
    const std::vector<float> rows(ids.size() * 32, value);
    for (const uint64_t id : ids) request.add_row_ids(id);
    request.set_rows(rows.data(), rows.size() * sizeof(float));
    request.set_rows_crc32c(Crc(request.rows()));
    return request;
  }

  test_support::TempDir dir_;
  const std::string model_ = dir_ / "tiny";
  std::string revision_;
  base::SteadyClock clock_;
  telemetry::Metrics metrics_{"engram_store"};
  std::unique_ptr<EngramTables> tables_;
  std::unique_ptr<EngramService> service_;
  std::unique_ptr<rpc::Server> server_;
  std::unique_ptr<Stub> stub_;
};

TEST_F(EngramServiceTest, AnEmptyStoreHasNoMemory) {
  Serve(false);
  pb::LookupRowsRequest rows;
  rows.mutable_model()->set_model("tiny");
  for (uint64_t id = 0; id < 7; ++id) rows.add_row_ids(id);
  EXPECT_EQ(Rows(rows).code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(ReasonOf(Rows(rows)), Reason::kModelHasNoMemory);
  pb::LookupTokensRequest tokens;
  tokens.mutable_model()->set_model("tiny");
  tokens.add_token_ids(3);
  EXPECT_EQ(ReasonOf(Tokens(tokens)), Reason::kModelHasNoMemory);
  pb::ListVersionsResponse versions;
  ASSERT_TRUE(Call(&Stub::ListVersions, pb::ListVersionsRequest(), versions).ok());
  EXPECT_EQ(versions.versions_size(), 0);
  const std::string page = metrics_.Serialize();
  EXPECT_THAT(page, HasSubstr("lookups_total{result=\"miss\"} 14\n"));
  EXPECT_THAT(page, HasSubstr("expertmesh_engram_store_versions 0\n"));
}

TEST_F(EngramServiceTest, RowsAndTokensAgreeWithTheCheckpoint) {
  Serve(true);
  pb::LookupTokensRequest tokens;
  tokens.mutable_model()->set_model(kModel);
  tokens.set_layer(3);
  const std::vector<uint32_t> ids = {0, 3, 511, 17, 17, 200};
  tokens.mutable_token_ids()->Add(ids.begin(), ids.end());
  tokens.set_skip(2);
  pb::LookupTokensResponse found;
  const absl::Status status = Call(&Stub::LookupTokens, tokens, found);
  ASSERT_TRUE(status.ok()) << status;
  const model::EngramHash hash = Hash();
  std::vector<uint64_t> rows(4 * hash.columns());
  for (size_t i = 2; i < ids.size(); ++i) {
    hash.Rows(1, std::span(ids).first(i), ids[i], rows.data() + (i - 2) * hash.columns());
  }
  EXPECT_EQ(found.rows(), CheckpointRows(model_, 3, rows));
  EXPECT_EQ(found.rows_per_token(), hash.columns());
  EXPECT_EQ(found.row_bytes(), 128u);
  EXPECT_EQ(found.rows_crc32c(), Crc(found.rows()));

  pb::LookupRowsRequest request;
  request.mutable_model()->set_model(kModel);
  request.set_version(found.version());
  request.set_layer(3);
  request.mutable_row_ids()->Add(rows.begin(), rows.end());
  pb::LookupRowsResponse response;
  ASSERT_TRUE(Call(&Stub::LookupRows, request, response).ok());
  EXPECT_EQ(response.rows(), found.rows());
  EXPECT_EQ(response.version(), found.version());
  EXPECT_EQ(response.rows_crc32c(), found.rows_crc32c());

  request.clear_row_ids();
  ASSERT_TRUE(Call(&Stub::LookupRows, request, response).ok());
  EXPECT_EQ(response.rows(), "");
  tokens.set_skip(6);
  ASSERT_TRUE(Call(&Stub::LookupTokens, tokens, found).ok());
  EXPECT_EQ(found.rows(), "");
}

TEST_F(EngramServiceTest, UnknownThingsHaveNames) {
  Serve(true);
  pb::LookupRowsRequest rows;
  rows.mutable_model()->set_model(kModel);
  rows.set_layer(1);
  rows.add_row_ids(1650);
  EXPECT_EQ(ReasonOf(Rows(rows)), Reason::kEngramRowNotFound);
  rows.set_row_ids(0, UINT64_MAX);
  EXPECT_EQ(ReasonOf(Rows(rows)), Reason::kEngramRowNotFound);
  rows.set_row_ids(0, 1649);
  EXPECT_TRUE(Rows(rows).ok());
  rows.set_layer(2);
  EXPECT_EQ(ReasonOf(Rows(rows)), Reason::kEngramRowNotFound);
  rows.set_layer(1);
  rows.set_version("v9");
  EXPECT_EQ(ReasonOf(Rows(rows)), Reason::kEngramVersionNotFound);
  rows.clear_version();
  rows.mutable_model()->set_revision("other");
  EXPECT_EQ(ReasonOf(Rows(rows)), Reason::kModelHasNoMemory);
  pb::LookupTokensRequest tokens;
  tokens.mutable_model()->set_model(kModel);
  tokens.set_layer(1);
  tokens.add_token_ids(512);
  EXPECT_EQ(ReasonOf(Tokens(tokens)), Reason::kInvalidArgument);
  tokens.set_token_ids(0, 5);
  tokens.set_layer(0);
  EXPECT_EQ(ReasonOf(Tokens(tokens)), Reason::kEngramRowNotFound);
}

TEST_F(EngramServiceTest, LookupsAreBounded) {
  Serve(true);
  pb::LookupRowsRequest rows;
  rows.mutable_model()->set_model(kModel);
  rows.set_layer(1);
  for (uint64_t id = 0; id < 65536; ++id) rows.add_row_ids(id % 1650);
  EXPECT_TRUE(Rows(rows).ok());
  rows.add_row_ids(0);
  EXPECT_EQ(ReasonOf(Rows(rows)), Reason::kInvalidArgument);
  pb::LookupTokensRequest tokens;
  tokens.mutable_model()->set_model(kModel);
  tokens.set_layer(1);
  for (uint32_t id = 0; id < 65536 / 4 + 1; ++id) tokens.add_token_ids(id % 512);
  EXPECT_EQ(ReasonOf(Tokens(tokens)), Reason::kInvalidArgument);
  tokens.set_skip(1);
  EXPECT_TRUE(Tokens(tokens).ok());
  tokens.set_skip(65536);
  EXPECT_EQ(ReasonOf(Tokens(tokens)), Reason::kInvalidArgument);
  pb::LookupBatchRequest batch;
  batch.mutable_model()->set_model(kModel);
  for (int i = 0; i < 2; ++i) {
    pb::RowSet* set = batch.add_sets();
    set->set_layer(1);
    for (int id = 0; id < 32769; ++id) set->add_row_ids(0);
  }
  pb::LookupBatchResponse answer;
  EXPECT_EQ(ReasonOf(Call(&Stub::LookupBatch, batch, answer)), Reason::kInvalidArgument);
}

TEST_F(EngramServiceTest, EachSetOfABatchHasItsOwnFate) {
  Serve(true);
  pb::UpdateRowsResponse draft;
  ASSERT_TRUE(Call(&Stub::UpdateRows, UpdateOf({0, 9}, 2.0f), draft).ok());
  const std::string before = (*tables_->Find({kModel, "", ""}))->record.version;
  pb::PublishRequest publish;
  publish.mutable_model()->set_model(kModel);
  publish.set_version(draft.version().version());
  pb::PublishResponse published;
  ASSERT_TRUE(Call(&Stub::Publish, publish, published).ok());
  pb::LookupBatchRequest request;
  request.mutable_model()->set_model(kModel);
  const auto add = [&](const std::string& version, uint32_t layer, uint64_t id) {
    pb::RowSet* set = request.add_sets();
    set->set_version(version);
    set->set_layer(layer);
    set->add_row_ids(id);
  };
  add("", 3, 9);
  add(before, 3, 9);
  add("nothing", 3, 9);
  add("", 7, 9);
  add("", 1, 4);
  pb::LookupBatchResponse response;
  ASSERT_TRUE(Call(&Stub::LookupBatch, request, response).ok());
  ASSERT_EQ(response.blocks_size(), 5);
  EXPECT_EQ(response.blocks(0).rows(), UpdateOf({9}, 2.0f).rows());
  EXPECT_EQ(response.blocks(1).rows(), CheckpointRows(model_, 3, {9}));
  EXPECT_EQ(ReasonOf(rpc::FromRpcStatus(response.blocks(2).status())),
            Reason::kEngramVersionNotFound);
  EXPECT_EQ(ReasonOf(rpc::FromRpcStatus(response.blocks(3).status())), Reason::kEngramRowNotFound);
  EXPECT_EQ(response.blocks(4).rows(), CheckpointRows(model_, 1, {4}));
  EXPECT_FALSE(response.blocks(4).has_status());
}

TEST_F(EngramServiceTest, AWrongChecksumChangesNothing) {
  Serve(true);
  pb::UpdateRowsRequest request = UpdateOf({0}, 1.0f);
  request.set_rows_crc32c(request.rows_crc32c() ^ 1);
  pb::UpdateRowsResponse response;
  EXPECT_EQ(ReasonOf(Call(&Stub::UpdateRows, request, response)), Reason::kEngramChecksum);
  EXPECT_EQ(tables_->List("", "", true).size(), 1u);
}

TEST_F(EngramServiceTest, LeasesAreTakenRenewedAndReleased) {
  Serve(true);
  pb::AcquireLeaseRequest acquire;
  acquire.mutable_model()->set_model(kModel);
  acquire.set_holder("w0");
  pb::AcquireLeaseResponse lease;
  ASSERT_TRUE(Call(&Stub::AcquireLease, acquire, lease).ok());
  EXPECT_EQ(lease.ttl_ms(), 30000u);
  EXPECT_EQ(lease.shape().width(), 32u);
  EXPECT_EQ(lease.shape().layers_size(), 2);
  pb::ListVersionsResponse versions;
  ASSERT_TRUE(Call(&Stub::ListVersions, pb::ListVersionsRequest(), versions).ok());
  EXPECT_EQ(versions.versions(0).version(), lease.version());
  EXPECT_EQ(versions.versions(0).leases(), 1u);
  pb::RenewLeasesRequest renew;
  renew.add_leases(lease.lease());
  renew.add_leases(lease.lease() + 1);
  pb::RenewLeasesResponse renewed;
  ASSERT_TRUE(Call(&Stub::RenewLeases, renew, renewed).ok());
  EXPECT_THAT(renewed.unknown(), testing::ElementsAre(lease.lease() + 1));
  pb::ReleaseLeasesRequest release;
  release.add_leases(lease.lease());
  pb::ReleaseLeasesResponse released;
  ASSERT_TRUE(Call(&Stub::ReleaseLeases, release, released).ok());
  ASSERT_TRUE(Call(&Stub::RenewLeases, renew, renewed).ok());
  EXPECT_EQ(renewed.unknown_size(), 2);
  acquire.set_ttl_ms(4999);
  EXPECT_EQ(ReasonOf(Call(&Stub::AcquireLease, acquire, lease)), Reason::kInvalidArgument);
  acquire.set_ttl_ms(0);
  acquire.set_version("nothing");
  EXPECT_EQ(ReasonOf(Call(&Stub::AcquireLease, acquire, lease)), Reason::kEngramVersionNotFound);
}

TEST_F(EngramServiceTest, OnlyPublishersChange) {
  Serve(true, {"ops"});
  pb::UpdateRowsResponse response;
  EXPECT_EQ(ReasonOf(Call(&Stub::UpdateRows, UpdateOf({0}, 1.0f), response)),
            Reason::kPermissionDenied);
  EXPECT_TRUE(Call(&Stub::UpdateRows, UpdateOf({0}, 1.0f), response, "ops").ok());
  pb::ListAuditResponse audit;
  ASSERT_TRUE(Call(&Stub::ListAudit, pb::ListAuditRequest(), audit).ok());
  ASSERT_EQ(audit.entries_size(), 4);
  EXPECT_EQ(audit.entries(0).principal(), "ops");
  EXPECT_TRUE(audit.entries(0).done());
  EXPECT_EQ(audit.entries(1).principal(), "me");
  EXPECT_FALSE(audit.entries(1).done());
  EXPECT_THAT(audit.entries(1).detail(), HasSubstr("PERMISSION_DENIED"));
  EXPECT_EQ(audit.entries(3).action(), "import");
}

TEST_F(EngramServiceTest, CallsNeedADeadline) {
  Serve(false);
  const auto stub = pb::EngramService::NewStub(
      grpc::CreateChannel(server_->address(), grpc::InsecureChannelCredentials()));
  grpc::ClientContext context;
  pb::LookupRowsResponse response;
  EXPECT_EQ(ReasonOf(rpc::FromGrpcStatus(stub->LookupRows(&context, {}, &response))),
            Reason::kDeadlineRequired);
}

}  // namespace
}  // namespace expertmesh::engram_store

#include "engram-store/engram_service.h"

#include <gmock/gmock.h>
#include <grpcpp/create_channel.h>
#include <gtest/gtest.h>

#include "services/base/status.h"
#include "services/rpc/server.h"
#include "services/rpc/status.h"

namespace expertmesh::engram_store {
namespace {

using base::Reason;
using engram::v1::ListVersionsRequest;
using engram::v1::ListVersionsResponse;
using engram::v1::LookupRowsRequest;
using engram::v1::LookupRowsResponse;
using engram::v1::LookupTokensRequest;
using engram::v1::LookupTokensResponse;
using testing::HasSubstr;

class EngramServiceTest : public testing::Test {
 protected:
  EngramServiceTest() { Serve({}); }
  ~EngramServiceTest() override { server_->Shutdown(std::chrono::milliseconds(0)); }

  void Serve(std::vector<VersionRecord> versions) {
    if (server_) server_->Shutdown(std::chrono::milliseconds(0));
    service_ =
        std::make_unique<EngramService>(VersionCatalogue(std::move(versions)), clock_, metrics_);
    server_ = *rpc::Server::Start({}, {service_.get()});
    stub_ = engram::v1::EngramService::NewStub(
        grpc::CreateChannel(server_->address(), grpc::InsecureChannelCredentials()));
  }

  static void SetDeadline(grpc::ClientContext& context) {
    context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(20));
  }
  absl::Status Rows(const LookupRowsRequest& request) {
    grpc::ClientContext context;
    SetDeadline(context);
    LookupRowsResponse response;
    return rpc::FromGrpcStatus(stub_->LookupRows(&context, request, &response));
  }
  absl::Status Tokens(const LookupTokensRequest& request) {
    grpc::ClientContext context;
    SetDeadline(context);
    LookupTokensResponse response;
    return rpc::FromGrpcStatus(stub_->LookupTokens(&context, request, &response));
  }
  ListVersionsResponse Versions(const ListVersionsRequest& request = {}) {
    grpc::ClientContext context;
    SetDeadline(context);
    ListVersionsResponse response;
    EXPECT_TRUE(stub_->ListVersions(&context, request, &response).ok());
    return response;
  }

  base::SteadyClock clock_;
  telemetry::Metrics metrics_{"engram_store"};
  std::unique_ptr<EngramService> service_;
  std::unique_ptr<rpc::Server> server_;
  std::unique_ptr<engram::v1::EngramService::Stub> stub_;
};

TEST_F(EngramServiceTest, AnEmptyStoreHasNoMemory) {
  LookupRowsRequest rows;
  rows.mutable_model()->set_model("tiny");
  for (uint64_t id = 0; id < 7; ++id) rows.add_row_ids(id);
  EXPECT_EQ(Rows(rows).code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(base::ReasonOf(Rows(rows)), Reason::kModelHasNoMemory);
  LookupTokensRequest tokens;
  tokens.mutable_model()->set_model("tiny");
  tokens.add_token_ids(3);
  EXPECT_EQ(base::ReasonOf(Tokens(tokens)), Reason::kModelHasNoMemory);
  EXPECT_EQ(Versions().versions_size(), 0);
  const std::string page = metrics_.Serialize();
  EXPECT_THAT(page, HasSubstr("lookups_total{result=\"miss\"} 15\n"));
  EXPECT_THAT(page, HasSubstr("lookup_seconds_count 3\n"));
  EXPECT_THAT(page, HasSubstr("expertmesh_engram_store_versions 0\n"));
}

TEST_F(EngramServiceTest, LookupsAreBounded) {
  LookupRowsRequest rows;
  for (uint64_t id = 0; id < 65536; ++id) rows.add_row_ids(id);
  EXPECT_EQ(base::ReasonOf(Rows(rows)), Reason::kModelHasNoMemory);
  rows.add_row_ids(0);
  EXPECT_EQ(base::ReasonOf(Rows(rows)), Reason::kInvalidArgument);
  LookupTokensRequest tokens;
  for (uint32_t id = 0; id < 65537; ++id) tokens.add_token_ids(id);
  EXPECT_EQ(base::ReasonOf(Tokens(tokens)), Reason::kInvalidArgument);
  tokens.mutable_token_ids()->Truncate(2);
  tokens.set_skip(3);
  EXPECT_EQ(base::ReasonOf(Tokens(tokens)), Reason::kInvalidArgument);
}

TEST_F(EngramServiceTest, ListsRecordedVersionsNewestFirst) {
  Serve({{"tiny", "rev-a", "v1", 10, 1}, {"tiny", "rev-a", "v2", 20, 2}, {"x", "r", "v3", 30, 3}});
  ListVersionsRequest request;
  request.mutable_model()->set_model("tiny");
  const ListVersionsResponse response = Versions(request);
  ASSERT_EQ(response.versions_size(), 2);
  EXPECT_EQ(response.versions(0).version(), "v2");
  EXPECT_EQ(response.versions(0).rows(), 20u);
  EXPECT_EQ(response.versions(0).model().revision(), "rev-a");
  EXPECT_EQ(response.versions(1).version(), "v1");
  EXPECT_EQ(Versions().versions_size(), 3);
  LookupRowsRequest rows;
  rows.mutable_model()->set_model("tiny");
  EXPECT_EQ(base::ReasonOf(Rows(rows)), Reason::kUnsupported);
  rows.set_version("v9");
  EXPECT_EQ(base::ReasonOf(Rows(rows)), Reason::kModelHasNoMemory);
}

TEST_F(EngramServiceTest, CallsNeedADeadline) {
  {
    grpc::ClientContext context;
    LookupRowsResponse response;
    EXPECT_EQ(base::ReasonOf(rpc::FromGrpcStatus(stub_->LookupRows(&context, {}, &response))),
              Reason::kDeadlineRequired);
  }
  grpc::ClientContext context;
  ListVersionsResponse response;
  EXPECT_EQ(base::ReasonOf(rpc::FromGrpcStatus(stub_->ListVersions(&context, {}, &response))),
            Reason::kDeadlineRequired);
}

}  // namespace
}  // namespace expertmesh::engram_store

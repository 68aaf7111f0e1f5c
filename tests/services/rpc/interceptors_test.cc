// The cross-cutting concerns of a call, each seen from the other end of a real socket.
#include <grpcpp/create_channel.h>
#include <gtest/gtest.h>

#include <chrono>
#include <string>

#include "services/base/status.h"
#include "services/rpc/server.h"
#include "services/rpc/status.h"
#include "services/telemetry/metrics.h"
#include "tests/services/rpc/handler_service.h"
#include "tests/services/rpc/temp_folder.h"
#include "tests/services/rpc/unary_call.h"

namespace expertmesh::rpc {
namespace {

using base::Reason;

constexpr char kLabel[] = "method=\"expertmesh.example.v1.ExampleService/CountWords\"";

class InterceptorsTest : public testing::Test {
 protected:
  void Serve(HandlerService::Handler handler) {
    service_ = std::make_unique<HandlerService>(std::move(handler));
    auto server = Server::Start({folder_.address("s"), &metrics_}, {service_.get()});
    ASSERT_TRUE(server.ok());
    server_ = *std::move(server);
    channel_ = MakeChannel(server_->address());
  }
  void ServeOk() {
    Serve([](const auto&) { return grpc::Status::OK; });
  }
  absl::Status CallAs(const Identity& identity) {
    grpc::ClientContext context;
    PrepareClient(context, identity, kCallBudget);
    return FromGrpcStatus(Call(*channel_, context, "x").status);
  }
  // The value of one series, or -1 if there is none.
  double Value(const std::string& series) {
    const std::string text = "\n" + metrics_.Serialize();
    const std::string start = "\nexpertmesh_example_" + series + " ";
    const size_t at = text.find(start);
    return at == std::string::npos ? -1 : std::stod(text.substr(at + start.size()));
  }
  // Labels come in either order.
  double Handled(const std::string& method, const std::string& code) {
    const std::string label = "code=\"" + code + "\"";
    return std::max(Value("rpc_server_handled_total{" + label + "," + method + "}"),
                    Value("rpc_server_handled_total{" + method + "," + label + "}"));
  }

  TempFolder folder_;
  telemetry::Metrics metrics_{"example"};
  std::unique_ptr<HandlerService> service_;
  std::unique_ptr<Server> server_;
  std::shared_ptr<grpc::Channel> channel_;
};

TEST_F(InterceptorsTest, MetricsCountEachCallOnce) {
  Serve([](const grpc::ServerContextBase& context) {
    return IdentityOf(context)->tenant == "bad"
               ? ToGrpcStatus(base::Error(Reason::kQueueFull, "later"))
               : grpc::Status::OK;
  });
  EXPECT_TRUE(CallAs({}).ok());
  EXPECT_TRUE(CallAs({}).ok());
  EXPECT_EQ(base::ReasonOf(CallAs({.tenant = "bad"})), Reason::kQueueFull);
  server_->Shutdown(std::chrono::milliseconds(0));
  EXPECT_EQ(Value(std::string("rpc_server_started_total{") + kLabel + "}"), 3);
  EXPECT_EQ(Handled(kLabel, "OK"), 2);
  EXPECT_EQ(Handled(kLabel, "RESOURCE_EXHAUSTED"), 1);
  EXPECT_EQ(Handled(kLabel, "CANCELLED"), -1);
  EXPECT_EQ(Value(std::string("rpc_server_duration_seconds_count{") + kLabel + "}"), 3);
}

TEST_F(InterceptorsTest, UnknownMethodsAreOneSeriesAndNamedUnsupported) {
  ServeOk();
  example::v1::CountWordsRequest request;
  example::v1::CountWordsResponse response;
  for (const std::string path : {"/no.such.Service/A", "/no.such.Service/B", "/x", "/a/b/c",
                                 "/expertmesh.example.v1.ExampleService/Nothing"}) {
    const absl::Status status = FromGrpcStatus(UnaryCall(*channel_, path, request, response));
    EXPECT_EQ(status.code(), absl::StatusCode::kUnimplemented) << path;
    EXPECT_EQ(base::ReasonOf(status), Reason::kUnsupported) << path;
  }
  server_->Shutdown(std::chrono::milliseconds(0));
  EXPECT_EQ(Value("rpc_server_started_total{method=\"other\"}"), 5);
  EXPECT_EQ(Handled("method=\"other\"", "UNIMPLEMENTED"), 5);
  EXPECT_EQ(metrics_.Serialize().find("no.such"), std::string::npos);
}

TEST_F(InterceptorsTest, AStatusWithoutDetailsLeavesWithItsReason) {
  Serve([](const auto&) { return grpc::Status(grpc::StatusCode::UNAVAILABLE, "library text"); });
  grpc::ClientContext context;
  PrepareClient(context, {}, kCallBudget);
  const grpc::Status status = Call(*channel_, context, "x").status;
  EXPECT_EQ(status.error_message(), "library text");
  google::rpc::Status details;
  ASSERT_TRUE(details.ParseFromString(status.error_details()));
  EXPECT_EQ(base::ReasonOf(FromRpcStatus(details)), Reason::kPeerLost);
  EXPECT_EQ(details.details_size(), 1);
}

TEST_F(InterceptorsTest, NotFoundWithoutDetailsGetsNoReason) {
  Serve([](const auto&) { return grpc::Status(grpc::StatusCode::NOT_FOUND, "no such name"); });
  grpc::ClientContext context;
  PrepareClient(context, {}, kCallBudget);
  const grpc::Status status = Call(*channel_, context, "x").status;
  EXPECT_EQ(status.error_code(), grpc::StatusCode::NOT_FOUND);
  EXPECT_EQ(status.error_details(), "");
  EXPECT_NE(base::ReasonOf(FromGrpcStatus(status)), Reason::kModelNotFound);
}

TEST_F(InterceptorsTest, AHandlersReasonIsLeftAlone) {
  Serve([](const auto&) {
    return ToGrpcStatus(base::Error(Reason::kDraining, "drain", {{"a", "b"}}));
  });
  const absl::Status status = CallAs({});
  EXPECT_EQ(base::ReasonOf(status), Reason::kDraining);
  EXPECT_EQ(base::MetadataOf(status).at("a"), "b");
}

TEST_F(InterceptorsTest, IdentityTravels) {
  Identity seen;
  Serve([&](const grpc::ServerContextBase& context) {
    seen = *IdentityOf(context);
    return grpc::Status::OK;
  });
  EXPECT_TRUE(CallAs({"team", "alice", "req-1"}).ok());
  EXPECT_EQ(seen.tenant, "team");
  EXPECT_EQ(seen.principal, "alice");
  EXPECT_EQ(seen.request_id, "req-1");
}

TEST_F(InterceptorsTest, BadMetadataEndsTheCallWhateverTheHandlerSays) {
  ServeOk();
  for (const Identity& identity :
       {Identity{.tenant = "a b"}, Identity{.tenant = std::string(129, 'a')},
        Identity{.principal = "\n"}, Identity{.principal = ""}, Identity{.request_id = "a b"}}) {
    const absl::Status status = CallAs(identity);
    EXPECT_EQ(base::ReasonOf(status), Reason::kBadMetadata);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  }
  // Raw, and twice.
  grpc::ClientContext context;
  PrepareClient(context, {}, kCallBudget);
  context.AddMetadata("x-expertmesh-tenant", "other");
  EXPECT_EQ(base::ReasonOf(FromGrpcStatus(Call(*channel_, context, "x").status)),
            Reason::kBadMetadata);
  server_->Shutdown(std::chrono::milliseconds(0));
  EXPECT_EQ(Handled(kLabel, "INVALID_ARGUMENT"), 6);
  EXPECT_EQ(Handled(kLabel, "OK"), -1);
  EXPECT_EQ(Value("bad_input_total{reason=\"BAD_METADATA\"}"), 6);
}

TEST_F(InterceptorsTest, AUnaryCallWithoutADeadlineIsNotSent) {
  ServeOk();
  grpc::ClientContext context;
  EXPECT_EQ(base::ReasonOf(FromGrpcStatus(Call(*channel_, context, "x").status)),
            Reason::kDeadlineRequired);
  server_->Shutdown(std::chrono::milliseconds(0));
  EXPECT_EQ(Value(std::string("rpc_server_started_total{") + kLabel + "}"), -1);
}

TEST_F(InterceptorsTest, TheServerSeesTheDeadlineAndItsAbsence) {
  absl::Status required;
  std::chrono::microseconds remaining{};
  Serve([&](const grpc::ServerContextBase& context) {
    required = RequireDeadline(context);
    remaining = Remaining(context);
    return grpc::Status::OK;
  });
  EXPECT_TRUE(CallAs({}).ok());
  EXPECT_TRUE(required.ok());
  EXPECT_GT(remaining.count(), 0);
  // gRPC rounds it up on the wire.
  EXPECT_LE(remaining, kCallBudget * 1.02);
  // A foreign client, without our interceptors.
  const auto foreign = grpc::CreateChannel(server_->address(), grpc::InsecureChannelCredentials());
  grpc::ClientContext context;
  EXPECT_TRUE(Call(*foreign, context, "x").status.ok());
  EXPECT_EQ(base::ReasonOf(required), Reason::kDeadlineRequired);
  EXPECT_EQ(remaining, std::chrono::hours(24));
}

TEST_F(InterceptorsTest, ASpentBudgetIsADeadlineExceeded) {
  ServeOk();
  for (const auto budget : {std::chrono::microseconds(0), std::chrono::microseconds::min()}) {
    grpc::ClientContext context;
    PrepareClient(context, {}, budget);
    EXPECT_EQ(base::ReasonOf(FromGrpcStatus(Call(*channel_, context, "x").status)),
              Reason::kDeadlineExceeded);
  }
  grpc::ClientContext context;
  PrepareClient(context, {}, std::chrono::microseconds::max());
  EXPECT_TRUE(Call(*channel_, context, "x").status.ok());
}

}  // namespace
}  // namespace expertmesh::rpc

#include "services/rpc/server.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <future>
#include <regex>
#include <string>

#include "grpc/health/v1/health.pb.h"
#include "services/base/status.h"
#include "services/rpc/status.h"
#include "tests/services/rpc/handler_service.h"
#include "tests/services/rpc/temp_folder.h"
#include "tests/services/rpc/unary_call.h"

namespace expertmesh::rpc {
namespace {

using base::Reason;

HandlerService& OkService() {
  static HandlerService service([](const auto&) { return grpc::Status::OK; });
  return service;
}

std::unique_ptr<Server> StartOn(const std::string& listen) {
  auto server = Server::Start({listen, nullptr}, {&OkService()});
  EXPECT_TRUE(server.ok()) << server.status();
  return server.ok() ? *std::move(server) : nullptr;
}

Answer Ask(const std::string& address, const std::string& text) {
  const auto channel = MakeChannel(address);
  grpc::ClientContext context;
  PrepareClient(context, {}, kCallBudget);
  return Call(*channel, context, text);
}

// The serving status of a name, or the code of the error as a negative number.
int Health(const std::string& address, const std::string& name) {
  grpc::health::v1::HealthCheckRequest request;
  request.set_service(name);
  grpc::health::v1::HealthCheckResponse response;
  const grpc::Status status =
      UnaryCall(*MakeChannel(address), "/grpc.health.v1.Health/Check", request, response);
  return status.ok() ? response.status() : -static_cast<int>(status.error_code());
}

constexpr int kServing = grpc::health::v1::HealthCheckResponse::SERVING;
constexpr int kNotServing = grpc::health::v1::HealthCheckResponse::NOT_SERVING;

TEST(Server, FillsInTheRealPort) {
  const auto server = StartOn("127.0.0.1:0");
  EXPECT_TRUE(std::regex_match(server->address(), std::regex("127\\.0\\.0\\.1:[1-9][0-9]*")));
  EXPECT_EQ(Ask(server->address(), "abc").word_count, 3u);
}

TEST(Server, ServesOnAUnixSocketAndLeavesNone) {
  TempFolder folder;
  const auto server = StartOn(folder.address("s"));
  EXPECT_EQ(server->address(), folder.address("s"));
  EXPECT_EQ(Ask(server->address(), "abc").word_count, 3u);
  server->Shutdown(std::chrono::milliseconds(0));
  EXPECT_FALSE(std::filesystem::exists(folder.path("s")));
}

TEST(Server, RefusesAddressesThatItCannotHave) {
  TempFolder folder;
  const auto port = StartOn("127.0.0.1:0");
  const auto socket = StartOn(folder.address("s"));
  for (const std::string& listen :
       {port->address(), socket->address(), folder.address("no-folder/s"), std::string("nonsense"),
        std::string("127.0.0.1:99999"), std::string("127.0.0.1:-1"), std::string("127.0.0.1:http"),
        "unix:/tmp/" + std::string(200, 'a')}) {
    const auto second = Server::Start({listen, nullptr}, {&OkService()});
    EXPECT_EQ(base::ReasonOf(second.status()), Reason::kInvalidArgument) << listen;
  }
  // The first ones are as they were.
  EXPECT_EQ(Ask(port->address(), "abc").word_count, 3u);
  EXPECT_EQ(Ask(socket->address(), "abc").word_count, 3u);
}

TEST(Server, AnswersHealthByName) {
  const auto server = StartOn("127.0.0.1:0");
  EXPECT_EQ(Health(server->address(), ""), kNotServing);
  EXPECT_EQ(Health(server->address(), "readiness"), kNotServing);
  EXPECT_EQ(Health(server->address(), "liveness"), kServing);
  server->SetServing(true);
  EXPECT_EQ(Health(server->address(), ""), kServing);
  EXPECT_EQ(Health(server->address(), "readiness"), kServing);
  server->SetServing(false);
  EXPECT_EQ(Health(server->address(), "readiness"), kNotServing);
  EXPECT_EQ(Health(server->address(), "liveness"), kServing);
  EXPECT_EQ(Health(server->address(), "nothing"), -static_cast<int>(grpc::StatusCode::NOT_FOUND));
}

TEST(Server, TakesAMessageOfAFrameAndRefusesALargerOne) {
  const auto server = StartOn("127.0.0.1:0");
  const size_t frame = 64u << 20;
  EXPECT_EQ(Ask(server->address(), std::string(frame, 'x')).word_count, frame);
  const Answer large = Ask(server->address(), std::string(frame + (2u << 20), 'x'));
  EXPECT_EQ(large.status.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
}

TEST(Server, ShutdownWaitsForARunningCall) {
  std::promise<void> entered;
  std::promise<void> leave;
  HandlerService slow([&](const auto&) {
    entered.set_value();
    leave.get_future().wait();
    return grpc::Status::OK;
  });
  auto server = Server::Start({"127.0.0.1:0", nullptr}, {&slow});
  ASSERT_TRUE(server.ok());
  const std::string address = (*server)->address();
  auto answer = std::async(std::launch::async, [&] { return Ask(address, "abc"); });
  entered.get_future().wait();
  auto down = std::async(std::launch::async, [&] { (*server)->Shutdown(std::chrono::minutes(5)); });
  leave.set_value();
  EXPECT_EQ(answer.get().word_count, 3u);
  down.get();
  (*server)->SetServing(true);  // too late, and harmless
  (*server)->Shutdown(std::chrono::milliseconds(0));
  const absl::Status lost = FromGrpcStatus(Ask(address, "abc").status);
  EXPECT_EQ(base::ReasonOf(lost), Reason::kPeerLost);
}

TEST(Channel, EachHasAConnectionOfItsOwn) {
  std::mutex mutex;
  std::vector<std::string> peers;
  HandlerService service([&](const grpc::ServerContextBase& context) {
    std::lock_guard lock(mutex);
    peers.push_back(context.peer());
    return grpc::Status::OK;
  });
  const auto server = Server::Start({"127.0.0.1:0", nullptr}, {&service});
  ASSERT_TRUE(server.ok());
  const auto decode = MakeChannel((*server)->address());
  const auto prefill = MakeChannel((*server)->address());
  for (const auto& channel : {decode, prefill, decode}) {
    grpc::ClientContext context;
    PrepareClient(context, {}, kCallBudget);
    EXPECT_TRUE(Call(*channel, context, "x").status.ok());
  }
  ASSERT_EQ(peers.size(), 3u);
  EXPECT_NE(peers[0], peers[1]);
  EXPECT_EQ(peers[0], peers[2]);
}

// The last owner of a channel, deleted in a reaction.
struct LastOwner final : grpc::ClientUnaryReactor {
  void OnDone(const grpc::Status& /*status*/) override {
    std::promise<void> told = std::move(done);
    delete this;
    told.set_value();
  }
  std::shared_ptr<grpc::Channel> channel;
  grpc::ClientContext context;
  grpc::ByteBuffer request;
  grpc::ByteBuffer response;
  std::promise<void> done;
};

TEST(Channel, MayDieInAReaction) {
  for (int i = 0; i < 200; ++i) {
    auto* owner = new LastOwner();
    auto done = owner->done.get_future();
    owner->channel = MakeChannel("unix:/no-such-socket");
    owner->request = ToBytes(example::v1::CountWordsRequest());
    PrepareClient(owner->context, {}, kCallBudget);
    grpc::GenericStub(owner->channel)
        .PrepareUnaryCall(&owner->context, "/x", grpc::StubOptions(), &owner->request,
                          &owner->response, owner);
    owner->StartCall();
    done.wait();
  }
}

}  // namespace
}  // namespace expertmesh::rpc

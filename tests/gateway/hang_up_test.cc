// Clients that leave: the worker's lane must stop.
#include <condition_variable>
#include <mutex>
#include <optional>

#include "tests/gateway/gateway_fixture.h"

namespace expertmesh::gateway {
namespace {

using lifecycle::TestConnection;

constexpr char kLeft[] = R"(requests_total{code="499",endpoint="chat_completions",model="tiny"})";

class HangUpTest : public GatewayTest {
 protected:
  // Ends the server, and with it everything that counts.
  void ExpectOneLeft() {
    EXPECT_TRUE(worker_.WaitForCancelled(1));
    http_->Stop(std::chrono::seconds(30));
    EXPECT_EQ(Metric("client_disconnects_total"), 1);
    EXPECT_EQ(Metric(kLeft), 1);
    EXPECT_EQ(Metric("inflight_requests"), 0);
  }
  static Script HangAfter(std::vector<inference::v1::GenerateResponse> events) {
    return {.events = std::move(events), .hang = true};
  }
};

TEST_F(HangUpTest, InTheMiddleOfAStream) {
  worker_.Follow(HangAfter({StartedEvent(3), TokenEvent(Ids("a").front())}));
  std::optional<TestConnection> client(std::in_place, Address());
  client->Send(Post("/v1/chat/completions", ChatBody(R"("stream":true)")));
  client->ReadUntil(R"("content":"a"})");
  client.reset();
  ExpectOneLeft();
}

TEST_F(HangUpTest, WhileAWholeAnswerIsComputed) {
  worker_.Follow(HangAfter({StartedEvent(3)}));
  std::optional<TestConnection> client(std::in_place, Address());
  client->Send(Post("/v1/chat/completions", ChatBody()));
  EXPECT_TRUE(worker_.WaitForRequests(1));
  client.reset();
  ExpectOneLeft();
}

TEST_F(HangUpTest, BeforeTheWorkerSaysAnything) {
  worker_.Follow(HangAfter({}));
  std::optional<TestConnection> client(std::in_place, Address());
  client->Send(Post("/v1/chat/completions", ChatBody(R"("stream":true)")));
  EXPECT_TRUE(worker_.WaitForRequests(1));
  client.reset();
  ExpectOneLeft();
}

TEST_F(HangUpTest, AlsoWhenTheNextRequestWasSentAhead) {
  worker_.Follow(HangAfter({StartedEvent(3)}));
  std::optional<TestConnection> client(std::in_place, Address());
  client->Send(Post("/v1/chat/completions", ChatBody()) + "GET /v1/models HTTP/1.1\r\n\r\n");
  EXPECT_TRUE(worker_.WaitForRequests(1));
  client.reset();
  ExpectOneLeft();
}

TEST_F(HangUpTest, AClientThatClosesOnlyItsSendingSideCountsAsGone) {
  worker_.Follow(HangAfter({StartedEvent(3)}));
  TestConnection client(Address());
  client.Send(Post("/v1/chat/completions", ChatBody()));
  EXPECT_TRUE(worker_.WaitForRequests(1));
  client.HalfClose();
  EXPECT_EQ(client.ReadAll(), "");
  ExpectOneLeft();
}

TEST_F(HangUpTest, AClientThatDoesNotReadIsGivenUp) {
  HttpServer::Options options;
  options.limits.write = std::chrono::milliseconds(100);
  StartHttp(options);
  mesh_->OnView(View());
  Script script = HangAfter({StartedEvent(3), TokenEvent(Ids("a").front())});
  script.repeat_last = 1 << 20;  // far more than sockets buffer
  worker_.Follow(script);
  TestConnection client(http_->address());
  client.Send(Post("/v1/chat/completions", ChatBody(R"("stream":true)")));
  ExpectOneLeft();
}

TEST_F(HangUpTest, ThoseThatStayAreNotDisturbed) {
  worker_.Follow(HangAfter({StartedEvent(3), TokenEvent(Ids("a").front())}));
  TestConnection stays(Address());
  stays.Send(Post("/v1/chat/completions", ChatBody(R"("stream":true)"), "Connection: close\r\n"));
  stays.ReadUntil(R"("content":"a"})");
  {
    TestConnection leaves(http_->address());
    leaves.Send(Post("/v1/chat/completions", ChatBody(R"("stream":true)")));
    leaves.ReadUntil(R"("content":"a"})");
  }
  EXPECT_TRUE(worker_.WaitForCancelled(1));
  worker_.Release();
  // This script has no Finished event, which is an error of its own: what counts is that the
  // answer came to an end that the worker gave.
  EXPECT_NE(stays.ReadAll().find("\"code\":\"internal\""), std::string::npos);
}

}  // namespace
}  // namespace expertmesh::gateway

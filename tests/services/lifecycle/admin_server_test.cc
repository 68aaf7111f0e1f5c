#include "services/lifecycle/admin_server.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <vector>

#include "services/base/status.h"
#include "tests/services/lifecycle/http_client.h"

namespace expertmesh::lifecycle {
namespace {

using testing::EndsWith;
using testing::HasSubstr;
using testing::StartsWith;

class AdminServerTest : public testing::Test {
 protected:
  void StartServer(AdminServer::Limits limits = {}) {
    auto started = AdminServer::Start(
        "127.0.0.1:0",
        {.page =
             [](std::string_view path) { return AdminReply{.body = "page " + std::string(path)}; },
         .bad_request = [this] { ++bad_requests_; }},
        limits);
    ASSERT_TRUE(started.ok()) << started.status();
    server_ = *std::move(started);
  }

  std::atomic<int> bad_requests_{0};
  std::unique_ptr<AdminServer> server_;
};

TEST_F(AdminServerTest, GetAnswersThePageWithoutTheQuery) {
  StartServer();
  const std::string answer = Ask(server_->address(), "GET", "/x?y=z");
  EXPECT_THAT(answer, StartsWith("HTTP/1.1 200 OK\r\n"));
  EXPECT_EQ(BodyOf(answer), "page /x");
}

TEST_F(AdminServerTest, HeadHasTheLengthAndNoBody) {
  StartServer();
  const std::string answer = Ask(server_->address(), "HEAD", "/x");
  EXPECT_THAT(answer, StartsWith("HTTP/1.1 200 OK\r\n"));
  EXPECT_THAT(answer, HasSubstr("Content-Length: 7\r\n"));
  EXPECT_EQ(BodyOf(answer), "");
}

TEST_F(AdminServerTest, OtherMethodsAre405) {
  StartServer();
  for (const char* method : {"POST", "PUT", "DELETE", "OPTIONS", "PATCH"}) {
    const std::string answer = Ask(server_->address(), method, "/x");
    EXPECT_THAT(answer, StartsWith("HTTP/1.1 405 ")) << method;
    EXPECT_THAT(answer, HasSubstr("Allow: GET, HEAD\r\n")) << method;
  }
  TestConnection with_body(server_->address());
  with_body.Send("POST /x HTTP/1.1\r\nConnection: close\r\nContent-Length: 3\r\n\r\nabc");
  EXPECT_THAT(with_body.ReadAll(), StartsWith("HTTP/1.1 405 "));
  EXPECT_EQ(bad_requests_, 0);
}

TEST_F(AdminServerTest, KeepsAConnectionForSeveralRequests) {
  StartServer();
  TestConnection connection(server_->address());
  for (const char* path : {"/a", "/b"}) {
    connection.Send(std::string("GET ") + path + " HTTP/1.1\r\nHost: t\r\n\r\n");
    EXPECT_THAT(connection.ReadUntil(path), EndsWith(std::string("page ") + path));
  }
  // HTTP/1.0 closes after its answer.
  connection.Send("GET /c HTTP/1.0\r\n\r\n");
  EXPECT_THAT(connection.ReadAll(), EndsWith("page /c"));
}

TEST_F(AdminServerTest, BytesThatAreNoHttpAre400AndCounted) {
  StartServer();
  int sent = 0;
  for (const char* bytes : {"hello\r\n\r\n", "GET / HTTP/9.9\r\n\r\n", "GET  HTTP/1.1\r\n\r\n",
                            "GET / HTTP/1.1\r\nbad header\r\n\r\n", "\x16\x03\x01\x02\r\n\r\n"}) {
    TestConnection connection(server_->address());
    connection.Send(bytes);
    EXPECT_THAT(connection.ReadAll(), StartsWith("HTTP/1.1 400 ")) << bytes;
    EXPECT_EQ(bad_requests_, ++sent);
  }
  EXPECT_THAT(Ask(server_->address(), "GET", "/"), StartsWith("HTTP/1.1 200 "));
}

TEST_F(AdminServerTest, RequestsAreBounded) {
  StartServer();
  TestConnection long_head(server_->address());
  long_head.Send("GET / HTTP/1.1\r\nX: " + std::string(9000, 'x') + "\r\n\r\n");
  EXPECT_THAT(long_head.ReadUntil("\r\n"), StartsWith("HTTP/1.1 431 "));
  TestConnection long_body(server_->address());
  long_body.Send("POST / HTTP/1.1\r\nContent-Length: 1000000\r\n\r\n");
  EXPECT_THAT(long_body.ReadUntil("\r\n"), StartsWith("HTTP/1.1 413 "));
}

TEST_F(AdminServerTest, IdleAndHalfSentRequestsAreClosed) {
  StartServer({.idle = std::chrono::milliseconds(20)});
  TestConnection silent(server_->address());
  EXPECT_EQ(silent.ReadAll(), "");
  TestConnection half(server_->address());
  half.Send("GET /x HTTP/1.1\r\nHost:");
  EXPECT_EQ(half.ReadAll(), "");
}

TEST_F(AdminServerTest, OneConnectionTooManyIsClosedAtOnce) {
  StartServer({.connections_max = 2});
  auto first = std::make_unique<TestConnection>(server_->address());
  TestConnection second(server_->address());
  for (TestConnection* open : {first.get(), &second}) {
    open->Send("GET /held HTTP/1.1\r\n\r\n");
    EXPECT_THAT(open->ReadUntil("/held"), EndsWith("/held"));
  }
  EXPECT_EQ(Ask(server_->address(), "GET", "/x"), "");
  // Once the server has seen one leave, there is room again.
  first->HalfClose();
  EXPECT_EQ(first->ReadAll(), "");
  first.reset();
  EXPECT_THAT(Ask(server_->address(), "GET", "/x"), EndsWith("page /x"));
}

TEST_F(AdminServerTest, AddressesThatCannotBeServedAreErrors) {
  StartServer();
  for (const std::string& listen :
       {std::string("127.0.0.1"), std::string(":0"), std::string("127.0.0.1:x"),
        std::string("127.0.0.1:70000"), std::string("no such host:0"), std::string(""),
        std::string("8.8.8.8:0")}) {
    const auto started = AdminServer::Start(listen, {}, {});
    EXPECT_EQ(base::ReasonOf(started.status()), base::Reason::kInvalidArgument) << listen;
  }
  EXPECT_EQ(base::ReasonOf(AdminServer::Start(server_->address(), {}, {}).status()),
            base::Reason::kInvalidArgument);  // taken
}

TEST_F(AdminServerTest, NamesAndOpenConnectionsDoNotHinderTheEnd) {
  auto named = AdminServer::Start("localhost:0", {}, {});
  ASSERT_TRUE(named.ok()) << named.status();
  EXPECT_THAT((*named)->address(), testing::Not(EndsWith(":0")));
  StartServer();
  TestConnection open(server_->address());
  server_.reset();
  EXPECT_EQ(open.ReadAll(), "");
}

}  // namespace
}  // namespace expertmesh::lifecycle

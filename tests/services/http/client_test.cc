#include "services/http/client.h"

#include <gtest/gtest.h>

#include <chrono>
#include <memory>
#include <string>

#include "services/base/status.h"
#include "services/lifecycle/admin_server.h"

namespace expertmesh::http {
namespace {

using base::Reason;
using lifecycle::AdminReply;
using lifecycle::AdminServer;
constexpr std::chrono::milliseconds kPatience(30000);

TEST(ParseUrlTest, TakesHttpWithHostPortAndPrefix) {
  const Url whole = *ParseUrl("http://127.0.0.1:8080/v1/");
  EXPECT_EQ(whole.host, "127.0.0.1");
  EXPECT_EQ(whole.port, "8080");
  EXPECT_EQ(whole.prefix, "/v1");
  EXPECT_EQ(ParseUrl("http://localhost")->port, "80");
  EXPECT_EQ(ParseUrl("http://[::1]:81")->host, "::1");
  EXPECT_EQ(ParseUrl("http://[::1]")->port, "80");
}

TEST(ParseUrlTest, RefusesTheRest) {
  for (const char* text : {"", "localhost:80", "https://a:1", "http://", "http://:80", "http://a:",
                           "http://a:0", "http://a:99999", "http://a:1x", "http://a b:1",
                           "http://a:1/x y", "http://a:1/\r\nX: y", "http://me@a:1"}) {
    EXPECT_EQ(base::ReasonOf(ParseUrl(text).status()), Reason::kInvalidArgument) << text;
  }
}

std::unique_ptr<AdminServer> Serve(int* asked = nullptr) {
  auto server = AdminServer::Start("127.0.0.1:0",
                                   {[asked](std::string_view path) {
                                      if (asked != nullptr) ++*asked;
                                      return AdminReply{.status = path == "/v1/x" ? 200u : 404u,
                                                        .body = std::string(path)};
                                    },
                                    [] {}},
                                   AdminServer::Limits());
  EXPECT_TRUE(server.ok()) << server.status();
  return *std::move(server);
}

TEST(HttpClientTest, KeepsItsConnectionAndTakesAnyStatus) {
  int asked = 0;
  const auto server = Serve(&asked);
  Client client(*ParseUrl("http://" + server->address() + "/v1"), kPatience);
  for (int i = 0; i < 3; ++i) {
    const auto found = client.Get("/x");
    ASSERT_TRUE(found.ok()) << found.status();
    EXPECT_EQ(found->status, 200u);
    EXPECT_EQ(found->body, "/v1/x");
  }
  EXPECT_EQ(client.Get("/y")->status, 404u);
  EXPECT_EQ(client.PostJson("/x", "{}")->status, 405u);
  EXPECT_EQ(asked, 4);
}

TEST(HttpClientTest, ComesBackAfterTheServerHasClosed) {
  auto server = Serve();
  Client client(*ParseUrl("http://" + server->address()), kPatience);
  ASSERT_TRUE(client.Get("/x").ok());
  const std::string address = server->address();
  server.reset();
  EXPECT_EQ(base::ReasonOf(client.Get("/x").status()), Reason::kPeerLost);
  auto again = AdminServer::Start(address, {[](std::string_view) { return AdminReply{}; }, [] {}},
                                  AdminServer::Limits());
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_TRUE(client.Get("/x").ok());
}

TEST(HttpClientTest, NobodyThereIsNamed) {
  std::string address;
  { address = Serve()->address(); }
  Client client(*ParseUrl("http://" + address), kPatience);
  const absl::Status status = client.Get("/x").status();
  EXPECT_EQ(base::ReasonOf(status), Reason::kPeerLost);
  EXPECT_NE(std::string(status.message()).find(address), std::string::npos);
}

}  // namespace
}  // namespace expertmesh::http

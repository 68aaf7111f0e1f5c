// gRPC over HTTP/2 without a socket: what one session writes, another reads, in any pieces.
#include "services/transport/grpc_session.h"

#include <gtest/gtest.h>
#include <sys/socket.h>

#include <map>
#include <string>
#include <utility>
#include <vector>

#include "services/base/status.h"
#include "services/rpc/channel.h"
#include "services/transport/grpc_connection.h"

namespace expertmesh::transport::internal {
namespace {

using base::Reason;

std::string_view Text(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

struct Recorder final : GrpcSession::Listener {
  void OnFields(int32_t stream, const Fields& got) override { fields[stream] = got; }
  void OnMessage(int32_t stream, size_t bytes) override {
    messages[stream].emplace_back();
    left = bytes;
  }
  void OnBytes(int32_t stream, std::span<const std::byte> bytes) override {
    ASSERT_LE(bytes.size(), left);
    left -= bytes.size();
    messages[stream].back().append(Text(bytes));
  }
  void OnHalfClose(int32_t stream) override { half_closed.push_back(stream); }
  void OnClosed(int32_t stream, const absl::Status& status) override { closed[stream] = status; }

  size_t left = 0;
  std::map<int32_t, Fields> fields;
  std::map<int32_t, std::vector<std::string>> messages;
  std::vector<int32_t> half_closed;
  std::map<int32_t, absl::Status> closed;
};

OutMessage Message(const std::string& prefix, size_t payload_bytes, char fill) {
  OutMessage message{prefix, Buffer(payload_bytes)};
  std::fill_n(reinterpret_cast<char*>(message.payload.data()), payload_bytes, fill);
  return message;
}

std::string Drain(GrpcSession& session, size_t most = std::string::npos) {
  std::string all;
  while (all.size() < most) {
    const auto got = session.Out();
    EXPECT_TRUE(got.ok()) << got.status();
    if (!got.ok() || got->empty()) break;
    const std::span<const iovec> out = *got;
    const size_t count = std::min(out.front().iov_len, most - all.size());
    all.append(static_cast<const char*>(out.front().iov_base), count);
    session.Sent(count);
  }
  return all;
}

class GrpcSessionTest : public testing::Test {
 protected:
  // Carries bytes to and fro in pieces until there are none; the errors of the two sides.
  std::pair<absl::Status, absl::Status> Exchange(size_t piece = 1000) {
    absl::Status at_client, at_server;
    for (bool more = true; more;) {
      const std::string to_server = Drain(client_, piece);
      const std::string to_client = Drain(server_, piece);
      more = !to_server.empty() || !to_client.empty();
      at_server.Update(server_.Receive(std::as_bytes(std::span(to_server))));
      at_client.Update(client_.Receive(std::as_bytes(std::span(to_client))));
      if (!at_client.ok() || !at_server.ok()) break;
    }
    return {at_client, at_server};
  }
  int32_t Open() {
    const int32_t stream = client_.Open("/a/B", "localhost", {{"x-key", "value"}});
    EXPECT_TRUE(Exchange().first.ok());
    return stream;
  }

  Recorder at_client_, at_server_;
  GrpcSession client_{GrpcSession::Side::kClient, at_client_};
  GrpcSession server_{GrpcSession::Side::kServer, at_server_};
};

TEST_F(GrpcSessionTest, FieldsAndMessagesComeThroughInPiecesOfAnySize) {
  for (const size_t piece : {size_t{1}, size_t{9}, size_t{1000}, size_t{1} << 20}) {
    const int32_t stream = Open();
    EXPECT_EQ(at_server_.fields[stream].find(":path")->second, "/a/B");
    EXPECT_EQ(at_server_.fields[stream].find("x-key")->second, "value");
    server_.Accept(stream, {{"x-answer", "yes"}});
    client_.Send(stream, Message("head", 0, ' '));
    client_.Send(stream, Message("", 0, ' '));
    client_.Send(stream, Message("big", 100'000, 'p'));
    server_.Send(stream, Message("answer", 70'000, 'q'));
    ASSERT_TRUE(Exchange(piece).first.ok());
    EXPECT_EQ(at_client_.fields[stream].find("x-answer")->second, "yes");
    EXPECT_EQ(at_server_.messages[stream],
              (std::vector<std::string>{"head", "", "big" + std::string(100'000, 'p')}));
    EXPECT_EQ(at_client_.messages[stream],
              std::vector<std::string>{"answer" + std::string(70'000, 'q')});
  }
}

// Beyond the windows of both: they have to be opened again on the way.
TEST_F(GrpcSessionTest, FortyMegabytesPassTheFlowControl) {
  const int32_t stream = Open();
  server_.Accept(stream, {});
  for (int i = 0; i < 4; ++i) client_.Send(stream, Message("", 10 << 20, 'x'));
  ASSERT_TRUE(Exchange(1 << 20).first.ok());
  ASSERT_EQ(at_server_.messages[stream].size(), 4u);
  EXPECT_EQ(at_server_.messages[stream][3].size(), size_t{10} << 20);
}

TEST_F(GrpcSessionTest, ARefusalBringsItsReasonAndTheConnectionStays) {
  const int32_t refused = client_.Open("/a/B", "localhost", {});
  ASSERT_TRUE(Exchange().first.ok());
  server_.Finish(refused, base::Error(Reason::kPeerLost, "another one, 100 % sure: \xc3\xa9"));
  ASSERT_TRUE(Exchange().first.ok());
  EXPECT_EQ(at_client_.closed[refused].message(), "another one, 100 % sure: \xc3\xa9");
  EXPECT_EQ(at_client_.closed[refused].code(), absl::StatusCode::kUnavailable);
  const int32_t next = Open();
  server_.Accept(next, {});
  client_.Send(next, Message("still here", 0, ' '));
  ASSERT_TRUE(Exchange().first.ok());
  EXPECT_EQ(at_server_.messages[next], std::vector<std::string>{"still here"});
  EXPECT_TRUE(at_server_.closed.contains(refused));
}

TEST_F(GrpcSessionTest, AStatusComesAfterAllMessages) {
  const int32_t stream = Open();
  server_.Accept(stream, {});
  server_.Send(stream, Message("last", 5000, 'z'));
  server_.Finish(stream, absl::OkStatus());
  ASSERT_TRUE(Exchange(7).first.ok());
  EXPECT_EQ(at_client_.messages[stream].size(), 1u);
  EXPECT_EQ(base::ReasonOf(at_client_.closed[stream]), Reason::kPeerLost);  // streams do not end
}

std::string DataFrame(int32_t stream, const std::string& bytes, uint8_t flags = 0) {
  std::string frame = {static_cast<char>(bytes.size() >> 16),
                       static_cast<char>(bytes.size() >> 8),
                       static_cast<char>(bytes.size()),
                       0,
                       static_cast<char>(flags),
                       0,
                       0,
                       0,
                       static_cast<char>(stream)};
  return frame + bytes;
}

TEST_F(GrpcSessionTest, CompressedTooLongAndCutOffMessagesEndTheirStreamAlone) {
  const std::vector<std::string> bad = {
      std::string("\x01\x00\x00\x00\x01x", 6),  // compressed
      std::string("\x00\x7f\xff\xff\xff", 5),   // 2 GiB
  };
  for (const std::string& bytes : bad) {
    const int32_t stream = Open();
    server_.Accept(stream, {});
    ASSERT_TRUE(Exchange().first.ok());
    const std::string frame = DataFrame(stream, bytes);
    ASSERT_TRUE(server_.Receive(std::as_bytes(std::span(frame))).ok());
    ASSERT_TRUE(Exchange().first.ok());
    EXPECT_FALSE(at_server_.closed.at(stream).ok());
    EXPECT_FALSE(at_client_.closed.at(stream).ok());
    EXPECT_TRUE(at_server_.messages[stream].empty());
  }
  const int32_t stream = Open();
  server_.Accept(stream, {});
  constexpr uint8_t kEndStream = 1;
  const std::string cut = DataFrame(stream, std::string("\x00\x00\x00\x00\x09half", 9), kEndStream);
  ASSERT_TRUE(server_.Receive(std::as_bytes(std::span(cut))).ok());
  ASSERT_TRUE(Exchange().first.ok());
  EXPECT_FALSE(at_server_.closed.at(stream).ok());
  EXPECT_TRUE(at_server_.half_closed.empty());
}

// Trailers in the middle of an answer, which gRPC's own server never sends.
TEST_F(GrpcSessionTest, AnAnswerThatIsCutOffEndsItsStream) {
  const int32_t stream = Open();
  server_.Accept(stream, {});
  ASSERT_TRUE(Exchange().first.ok());
  const std::string cut = DataFrame(stream, std::string("\x00\x00\x00\x00\x09half", 9));
  ASSERT_TRUE(client_.Receive(std::as_bytes(std::span(cut))).ok());
  server_.Finish(stream, absl::OkStatus());
  ASSERT_TRUE(Exchange().first.ok());
  EXPECT_FALSE(at_client_.closed.at(stream).ok());
}

// Answers to pings, and messages, of a peer that never reads: the first end the connection, the
// second are counted.
TEST_F(GrpcSessionTest, WhatAPeerDoesNotReadIsBounded) {
  const int32_t stream = Open();
  server_.Accept(stream, {});
  ASSERT_TRUE(Exchange().first.ok());
  for (int i = 0; i < 100; ++i) server_.Send(stream, Message("", 1 << 20, 'm'));
  EXPECT_GT(server_.backlog(), size_t{100} << 20);
  ASSERT_TRUE(server_.Out().ok());
  const std::string ping(
      "\x00\x00\x08\x06\x00\x00\x00\x00\x00"
      "12345678",
      17);
  absl::Status status;
  int pings = 0;
  for (; status.ok() && pings < 100'000; ++pings) {
    status = server_.Receive(std::as_bytes(std::span(ping)));
    if (status.ok()) status = server_.Out().status();
  }
  EXPECT_EQ(base::ReasonOf(status), Reason::kPeerLost);
  EXPECT_LT(pings, 100'000);
}

TEST_F(GrpcSessionTest, WhatIsNotHttp2EndsTheConnection) {
  const std::string http1 = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
  EXPECT_EQ(base::ReasonOf(server_.Receive(std::as_bytes(std::span(http1)))), Reason::kPeerLost);
  (void)client_.Receive(std::as_bytes(std::span(http1))).ok();  // a frame of four megabytes
  EXPECT_FALSE(client_.over());
  Drain(client_);  // its goodbye
  EXPECT_TRUE(client_.over());
}

TEST_F(GrpcSessionTest, FieldsWithoutEndAreRefused) {
  const int32_t stream = client_.Open("/a/B", "localhost", {{"x-long", std::string(60'000, 'l')}});
  ASSERT_GT(stream, 0);
  Exchange();
  EXPECT_FALSE(at_server_.fields.contains(stream));
  EXPECT_TRUE(at_client_.closed.contains(stream));
}

TEST_F(GrpcSessionTest, MessagesForAStreamThatIsOverAreDropped) {
  const int32_t stream = Open();
  server_.Finish(stream, base::Error(Reason::kUnsupported, "no"));
  server_.Send(stream, Message("late", 10, 'l'));
  client_.Send(99, Message("never opened", 0, ' '));
  ASSERT_TRUE(Exchange().first.ok());
  EXPECT_TRUE(at_client_.messages[stream].empty());
}

class GrpcConnectionTest : public testing::Test {
 protected:
  void SetUp() override {
    int pair[2];
    ASSERT_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, pair), 0);
    client_ = std::make_unique<GrpcConnection>(UniqueFd(pair[0]), GrpcSession::Side::kClient, at_);
    server_ = std::make_unique<GrpcConnection>(UniqueFd(pair[1]), GrpcSession::Side::kServer, at_);
  }
  absl::Status Turn(GrpcConnection& connection) {
    absl::Status status = connection.Read(scratch_).status();
    if (status.ok()) status = connection.Flush();
    return status;
  }

  Recorder at_;
  std::vector<std::byte> scratch_ = std::vector<std::byte>(4096);
  std::unique_ptr<GrpcConnection> client_, server_;
};

TEST_F(GrpcConnectionTest, ASilentPeerIsAskedAndThenMissed) {
  EXPECT_TRUE(client_->Tick().ok());  // it has just come
  for (int i = 0; i < 3; ++i) {
    EXPECT_TRUE(client_->Tick().ok() && client_->Flush().ok());  // asks
    EXPECT_TRUE(Turn(*server_).ok());
    EXPECT_TRUE(Turn(*client_).ok());
    EXPECT_TRUE(client_->Tick().ok());  // was answered
  }
  EXPECT_TRUE(client_->Tick().ok() && client_->Flush().ok());
  EXPECT_TRUE(Turn(*server_).ok());
  EXPECT_TRUE(client_->Tick().ok());  // answered, though nobody has read it yet
  EXPECT_TRUE(Turn(*client_).ok());
  EXPECT_TRUE(client_->Tick().ok());
  EXPECT_TRUE(client_->Tick().ok());
  EXPECT_EQ(base::ReasonOf(client_->Tick()), Reason::kPeerLost);
}

TEST_F(GrpcConnectionTest, AFullSocketIsWrittenOnLater) {
  const int32_t stream = client_->session().Open("/a/B", "localhost", {});
  ASSERT_TRUE(client_->Flush().ok());
  ASSERT_TRUE(Turn(*server_).ok());
  server_->session().Accept(stream, {});
  ASSERT_TRUE(Turn(*server_).ok());
  ASSERT_TRUE(Turn(*client_).ok());
  client_->session().Send(stream, Message("", 8 << 20, 'f'));
  ASSERT_TRUE(client_->Flush().ok());
  EXPECT_TRUE(client_->stuck());
  for (int turns = 0; client_->stuck() && turns < 100'000; ++turns) {
    ASSERT_TRUE(Turn(*server_).ok());
    ASSERT_TRUE(Turn(*client_).ok());
  }
  ASSERT_TRUE(Turn(*server_).ok());
  while (at_.left > 0) ASSERT_TRUE(Turn(*server_).ok());
  EXPECT_EQ(at_.messages[stream].front().size(), size_t{8} << 20);
}

TEST_F(GrpcConnectionTest, AClosedPeerIsLost) {
  server_.reset();
  EXPECT_EQ(base::ReasonOf(Turn(*client_)), Reason::kPeerLost);
}

}  // namespace
}  // namespace expertmesh::transport::internal

// A raw TCP client for the tests of the admin port: what it sends may be no HTTP at all.
#pragma once

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstdlib>
#include <string>

namespace expertmesh::lifecycle {

/// One connection to "127.0.0.1:port". Reads block until the server answers or closes.
class TestConnection {
 public:
  explicit TestConnection(const std::string& address) {
    const size_t colon = address.rfind(':');
    sockaddr_in to = {};
    to.sin_family = AF_INET;
    to.sin_port = htons(static_cast<uint16_t>(std::atoi(address.c_str() + colon + 1)));
    inet_pton(AF_INET, address.substr(0, colon).c_str(), &to.sin_addr);
    socket_ = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    connected_ = connect(socket_, reinterpret_cast<const sockaddr*>(&to), sizeof(to)) == 0;
  }
  ~TestConnection() { close(socket_); }
  TestConnection(const TestConnection&) = delete;
  TestConnection& operator=(const TestConnection&) = delete;

  bool connected() const { return connected_; }
  void Send(const std::string& bytes) {
    [[maybe_unused]] const auto sent = send(socket_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
  }
  void HalfClose() { shutdown(socket_, SHUT_WR); }

  /// Everything until the server closes.
  std::string ReadAll() {
    std::string text;
    char chunk[4096];
    for (ssize_t n; (n = recv(socket_, chunk, sizeof(chunk), 0)) > 0;) {
      text.append(chunk, static_cast<size_t>(n));
    }
    return text;
  }
  /// At least up to and including `end`, or until the server closes.
  std::string ReadUntil(const std::string& end) {
    std::string text;
    char byte = 0;
    while (!text.ends_with(end) && recv(socket_, &byte, 1, 0) == 1) text.push_back(byte);
    return text;
  }

 private:
  int socket_ = -1;
  bool connected_ = false;
};

/// The whole answer, head and body, to one request on a connection of its own.
inline std::string Ask(const std::string& address, const std::string& method,
                       const std::string& path) {
  TestConnection connection(address);
  connection.Send(method + " " + path + " HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n");
  return connection.ReadAll();
}

inline std::string BodyOf(const std::string& answer) {
  const size_t head = answer.find("\r\n\r\n");
  return head == std::string::npos ? "" : answer.substr(head + 4);
}

}  // namespace expertmesh::lifecycle

#include "tests/support/http_client.h"

#include <arpa/inet.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstdlib>

namespace expertmesh::test_support {
namespace {

std::string JoinChunks(const std::string& raw) {
  std::string body;
  size_t at = 0;
  while (at < raw.size()) {
    const size_t line = raw.find("\r\n", at);
    if (line == std::string::npos) break;
    const size_t size = std::strtoul(raw.substr(at, line - at).c_str(), nullptr, 16);
    if (size == 0) break;
    body += raw.substr(line + 2, size);
    at = line + 2 + size + 2;
  }
  return body;
}

}  // namespace

int HttpConnect(const std::string& address) {
  const size_t colon = address.rfind(':');
  if (colon == std::string::npos) return -1;
  sockaddr_in peer{};
  peer.sin_family = AF_INET;
  peer.sin_port = htons(static_cast<uint16_t>(std::atoi(address.c_str() + colon + 1)));
  inet_pton(AF_INET, address.substr(0, colon).c_str(), &peer.sin_addr);
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (connect(fd, reinterpret_cast<sockaddr*>(&peer), sizeof(peer)) == 0) return fd;
  close(fd);
  return -1;
}

HttpResponse HttpExchange(const std::string& address, const std::string& bytes) {
  HttpResponse response;
  const int fd = HttpConnect(address);
  if (fd < 0) return response;
  std::string raw;
  size_t sent = 0;
  while (sent < bytes.size()) {
    const ssize_t n = send(fd, bytes.data() + sent, bytes.size() - sent, MSG_NOSIGNAL);
    if (n <= 0) break;  // the server may refuse before it has read everything
    sent += static_cast<size_t>(n);
  }
  char buffer[16384];
  for (ssize_t n = 0; (n = read(fd, buffer, sizeof(buffer))) > 0;) {
    raw.append(buffer, static_cast<size_t>(n));
  }
  close(fd);
  const size_t end = raw.find("\r\n\r\n");
  if (end == std::string::npos || raw.size() < 12) return response;
  response.header = raw.substr(0, end);
  response.status = std::atoi(raw.c_str() + 9);
  response.body = raw.substr(end + 4);
  if (response.header.find("chunked") != std::string::npos)
    response.body = JoinChunks(response.body);
  return response;
}

HttpResponse HttpPost(const std::string& address, const std::string& path,
                      const std::string& body) {
  return HttpExchange(address, "POST " + path + " HTTP/1.1\r\nHost: test\r\nConnection: close\r\n" +
                                   "Content-Type: application/json\r\nContent-Length: " +
                                   std::to_string(body.size()) + "\r\n\r\n" + body);
}

}  // namespace expertmesh::test_support

// A blocking HTTP/1.1 client over a raw socket: what arrives is what the test sees.
#pragma once

#include <string>

namespace expertmesh::test_support {

struct HttpResponse {
  int status = 0;      // 0 = nobody answered
  std::string header;  // status line and fields
  std::string body;    // chunks joined
};

/// "127.0.0.1:port". Sends the bytes as they are, reads until the peer closes.
HttpResponse HttpExchange(const std::string& address, const std::string& bytes);
/// POST with Content-Length and Connection: close.
HttpResponse HttpPost(const std::string& address, const std::string& path, const std::string& body);
/// Connects and returns the socket; the caller closes it. -1 on failure.
int HttpConnect(const std::string& address);

}  // namespace expertmesh::test_support

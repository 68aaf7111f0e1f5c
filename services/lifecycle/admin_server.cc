#include "services/lifecycle/admin_server.h"

#include <chrono>
#include <optional>
#include <thread>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "boost/asio/io_context.hpp"
#include "boost/asio/ip/tcp.hpp"
#include "boost/asio/steady_timer.hpp"
#include "boost/beast/core.hpp"
#include "boost/beast/http.hpp"
#include "services/base/status.h"

namespace expertmesh::lifecycle {
namespace {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = boost::beast::http;
using asio::ip::tcp;
using boost::system::error_code;

// What the sessions share; lives longer than they do.
struct Shared {
  AdminServer::Callbacks callbacks;
  AdminServer::Limits limits;
  int open_sessions = 0;  // admin thread only
};

// One connection. Kept alive by its pending operation.
class Session : public std::enable_shared_from_this<Session> {
 public:
  Session(tcp::socket socket, Shared& shared)
      : stream_(std::move(socket)),
        shared_(shared),
        buffer_(shared.limits.header_bytes_max + shared.limits.body_bytes_max) {
    ++shared_.open_sessions;
  }
  ~Session() { --shared_.open_sessions; }

  void Read() {
    parser_.emplace();
    parser_->header_limit(shared_.limits.header_bytes_max);
    parser_->body_limit(shared_.limits.body_bytes_max);
    stream_.expires_after(shared_.limits.idle);
    http::async_read(stream_, buffer_, *parser_,
                     beast::bind_front_handler(&Session::OnRead, shared_from_this()));
  }

 private:
  void OnRead(error_code error, size_t /*bytes*/) {
    if (!error) {
      const auto& request = parser_->get();
      Answer(request.method(), PageFor(request), request.version(), request.keep_alive());
      return;
    }
    // Errors of Beast's HTTP category are the client's bytes; the others are its connection.
    const bool malformed =
        error.category() == make_error_code(http::error::bad_target).category() &&
        error != http::error::end_of_stream;
    if (!malformed) return Close();
    shared_.callbacks.bad_request();
    AdminReply reply{.status = 400, .body = "malformed HTTP request\n"};
    if (error == http::error::header_limit) reply.status = 431;
    if (error == http::error::body_limit) reply.status = 413;
    Answer(http::verb::get, std::move(reply), 11, false);
  }

  AdminReply PageFor(const http::request<http::string_body>& request) {
    if (request.method() != http::verb::get && request.method() != http::verb::head) {
      return {.status = 405, .body = "this port answers GET and HEAD only\n"};
    }
    const std::string_view target(request.target().data(), request.target().size());
    return shared_.callbacks.page(target.substr(0, target.find('?')));
  }

  void Answer(http::verb method, AdminReply reply, unsigned version, bool keep_alive) {
    response_ = {};
    response_.result(reply.status);
    response_.version(version);
    response_.keep_alive(keep_alive);
    response_.set(http::field::content_type, reply.content_type);
    response_.set(http::field::cache_control, "no-store");
    if (reply.status == 405) response_.set(http::field::allow, "GET, HEAD");
    response_.content_length(reply.body.size());  // HEAD: of the page that GET would bring
    if (method != http::verb::head) response_.body() = std::move(reply.body);
    stream_.expires_after(shared_.limits.idle);
    http::async_write(stream_, response_,
                      beast::bind_front_handler(&Session::OnWritten, shared_from_this()));
  }

  void OnWritten(error_code error, size_t /*bytes*/) {
    if (error || !response_.keep_alive()) return Close();
    Read();
  }

  void Close() {
    error_code ignored;  // the peer may be gone already
    stream_.socket().shutdown(tcp::socket::shutdown_send, ignored);
  }

  beast::tcp_stream stream_;
  Shared& shared_;
  beast::flat_buffer buffer_;
  std::optional<http::request_parser<http::string_body>> parser_;
  http::response<http::string_body> response_;
};

absl::Status BadListen(const std::string& listen, std::string_view why) {
  return base::Error(base::Reason::kInvalidArgument,
                     absl::StrCat("cannot serve the admin port at '", listen,
                                  "': ", std::string(why), "; give --admin-listen HOST:PORT"));
}

}  // namespace

struct AdminServer::Impl {
  Shared shared;  // first: sessions die with `io` and still refer to it
  asio::io_context io{1};
  tcp::acceptor acceptor{io};
  asio::steady_timer pause{io};
  std::string address;
  std::thread thread;

  absl::Status Listen(const std::string& listen);
  void Accept();
};

absl::Status AdminServer::Impl::Listen(const std::string& listen) {
  const size_t colon = listen.rfind(':');
  if (colon == std::string::npos || colon == 0) return BadListen(listen, "no host or port");
  std::string host = listen.substr(0, colon);
  const std::string port = listen.substr(colon + 1);
  if (host.size() > 2 && host.front() == '[' && host.back() == ']') {
    host = host.substr(1, host.size() - 2);
  }
  uint32_t number = 0;
  if (!absl::SimpleAtoi(port, &number) || number > 65535) return BadListen(listen, "bad port");

  error_code error;
  const auto found = tcp::resolver(io).resolve(host, port, tcp::resolver::numeric_service, error);
  if (error) return BadListen(listen, error.message());
  const tcp::endpoint wanted = found.begin()->endpoint();
  acceptor.open(wanted.protocol(), error);
  if (!error) acceptor.set_option(asio::socket_base::reuse_address(true), error);
  if (!error) acceptor.bind(wanted, error);
  if (!error) acceptor.listen(shared.limits.connections_max, error);
  if (error) return BadListen(listen, error.message());
  const tcp::endpoint bound = acceptor.local_endpoint(error);
  if (error) return BadListen(listen, error.message());
  const std::string ip = bound.address().to_string();
  address = bound.address().is_v6() ? absl::StrCat("[", ip, "]:", bound.port())
                                    : absl::StrCat(ip, ":", bound.port());
  return absl::OkStatus();
}

void AdminServer::Impl::Accept() {
  acceptor.async_accept([this](error_code error, tcp::socket socket) {
    if (!error) {
      if (shared.open_sessions < shared.limits.connections_max) {
        std::make_shared<Session>(std::move(socket), shared)->Read();
      }
      return Accept();
    }
    // Out of descriptors, say: try again a little later instead of spinning.
    pause.expires_after(std::chrono::milliseconds(100));
    pause.async_wait([this](error_code) { Accept(); });
  });
}

AdminServer::AdminServer(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

absl::StatusOr<std::unique_ptr<AdminServer>> AdminServer::Start(const std::string& listen,
                                                                Callbacks callbacks,
                                                                Limits limits) {
  try {  // Asio throws when the machine has no descriptors or threads left
    auto impl = std::make_unique<Impl>();
    impl->shared.callbacks = std::move(callbacks);
    impl->shared.limits = limits;
    EM_RETURN_IF_ERROR(impl->Listen(listen));
    impl->Accept();
    impl->thread = std::thread([raw = impl.get()] { raw->io.run(); });
    return std::unique_ptr<AdminServer>(new AdminServer(std::move(impl)));
  } catch (const std::exception& error) {
    return BadListen(listen, error.what());
  }
}

AdminServer::~AdminServer() {
  impl_->io.stop();
  impl_->thread.join();
}

std::string AdminServer::address() const { return impl_->address; }

}  // namespace expertmesh::lifecycle

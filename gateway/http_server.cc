#include "gateway/http_server.h"

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/strand.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <condition_variable>
#include <mutex>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "gateway/session.h"
#include "services/base/status.h"

namespace expertmesh::gateway {

namespace asio = boost::asio;
using asio::ip::tcp;
using boost::system::error_code;

struct HttpServer::Impl {
  Impl(const Options& o, const Api& a) : options(o), api(a), acceptor(io) {}

  asio::awaitable<void> Accept() {
    for (;;) {
      error_code error;
      tcp::socket socket = co_await acceptor.async_accept(
          asio::make_strand(io), asio::redirect_error(asio::use_awaitable, error));
      if (error == asio::error::operation_aborted) co_return;
      if (error || open >= options.connections_max) continue;  // a refused socket closes here
      ++open;
      const auto executor = socket.get_executor();
      const auto session = std::make_shared<Session>(std::move(socket), api);
      asio::co_spawn(executor, session->Run(), [this, session](std::exception_ptr) {
        std::lock_guard lock(mutex);
        --open;
        changed.notify_all();
      });
    }
  }

  const Options options;
  const Api& api;
  std::atomic<int> open{0};
  std::mutex mutex;
  std::condition_variable changed;
  asio::io_context io;
  tcp::acceptor acceptor;
  std::vector<std::thread> threads;
  bool stopped = false;
};

HttpServer::HttpServer(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

absl::StatusOr<std::unique_ptr<HttpServer>> HttpServer::Start(const Options& options,
                                                              const Api& api) {
  const auto bad = [&](const std::string& why) {
    return base::Error(base::Reason::kInvalidArgument,
                       absl::StrCat("--http ", options.listen, ": ", why));
  };
  const size_t colon = options.listen.rfind(':');
  uint32_t port = 0;
  if (colon == std::string::npos ||
      !absl::SimpleAtoi(options.listen.substr(colon + 1), &port) || port > 65535) {
    return bad("write it as HOST:PORT");
  }
  error_code error;
  const auto host = asio::ip::make_address(options.listen.substr(0, colon), error);
  if (error) return bad("the host must be an IP address");
  std::unique_ptr<HttpServer> server(new HttpServer(std::make_unique<Impl>(options, api)));
  Impl& impl = *server->impl_;
  const tcp::endpoint endpoint(host, static_cast<uint16_t>(port));
  impl.acceptor.open(endpoint.protocol(), error);
  if (!error) impl.acceptor.set_option(tcp::acceptor::reuse_address(true), error);
  if (!error) impl.acceptor.bind(endpoint, error);
  if (!error) impl.acceptor.listen(asio::socket_base::max_listen_connections, error);
  if (error) return bad(absl::StrCat(error.message(), "; choose another port"));
  server->address_ = absl::StrCat(options.listen.substr(0, colon), ":",
                                  impl.acceptor.local_endpoint().port());
  asio::co_spawn(impl.io, impl.Accept(), asio::detached);
  for (int i = 0; i < options.threads; ++i) {
    impl.threads.emplace_back([&impl] { impl.io.run(); });
  }
  return server;
}

void HttpServer::Stop(std::chrono::milliseconds grace) {
  if (impl_->stopped) return;
  impl_->stopped = true;
  asio::post(impl_->io, [this] {
    error_code ignored;
    impl_->acceptor.close(ignored);
  });
  {
    // Idle keep-alive connections count as open too; they are cut when the grace is over.
    std::unique_lock lock(impl_->mutex);
    impl_->changed.wait_for(lock, grace, [&] { return impl_->open == 0; });
  }
  impl_->io.stop();
  for (std::thread& thread : impl_->threads) thread.join();
}

HttpServer::~HttpServer() { Stop(std::chrono::milliseconds(0)); }

}  // namespace expertmesh::gateway

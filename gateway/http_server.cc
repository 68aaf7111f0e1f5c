#include "gateway/http_server.h"

#include <spdlog/spdlog.h>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/strand.hpp>
#include <boost/asio/thread_pool.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <condition_variable>
#include <exception>
#include <functional>
#include <map>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "gateway/core/http_target.h"
#include "gateway/core/openai_response.h"
#include "gateway/request_log.h"
#include "gateway/session.h"
#include "services/base/status.h"

namespace expertmesh::gateway {

namespace asio = boost::asio;
using asio::ip::tcp;
using boost::system::error_code;

namespace {

constexpr auto kAcceptPause = std::chrono::milliseconds(100);  // e.g. out of file descriptors
constexpr auto kAbortGrace = std::chrono::seconds(1);          // to write the error of an abort

// Without reading the request, so only as much as the socket takes at once.
void RefuseConnection(tcp::socket& socket, GatewayMetrics& metrics) {
  const ApiError error = FromStatus(
      base::Error(base::Reason::kQueueFull, "this gateway has all the connections it takes"));
  const RequestRecord record{.request_id = NewRequestId(),
                             .endpoint = EndpointLabel(Door::kUnknown),
                             .status = "503",
                             .reason = error.code};
  const std::string body = ErrorBody(error);
  const std::string text = absl::StrCat(
      "HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nRetry-After: 1\r\n",
      "x-request-id: ", record.request_id, "\r\nConnection: close\r\nContent-Length: ", body.size(),
      "\r\n\r\n", body);
  metrics.CountAnswer(record.endpoint, 503);
  metrics.CountError(error);
  LogRequest(record);
  error_code ignored;
  socket.non_blocking(true, ignored);
  socket.write_some(asio::buffer(text), ignored);
}

struct Listen {
  std::string host;
  uint16_t port = 0;
};

absl::StatusOr<Listen> ParseListen(const std::string& text) {
  const size_t colon = text.rfind(':');
  uint32_t port = 0;
  if (colon == std::string::npos || colon == 0 ||
      !absl::SimpleAtoi(text.substr(colon + 1), &port) || port > 65535) {
    return base::Error(base::Reason::kInvalidArgument,
                       absl::StrCat("--http ", text, ": write it as HOST:PORT"));
  }
  std::string host = text.substr(0, colon);
  if (host.size() > 2 && host.front() == '[' && host.back() == ']') {
    host = host.substr(1, host.size() - 2);
  }
  return Listen{host, static_cast<uint16_t>(port)};
}

}  // namespace

struct HttpServer::Impl {
  Impl(const Options& o, const Api& a)
      : options(o),
        api(a),
        workers(static_cast<size_t>(o.threads)),
        acceptor(asio::make_strand(io)) {}

  absl::Status Bind();
  asio::awaitable<void> Accept();
  void Serve(tcp::socket socket);
  void Ended(uint64_t id, std::exception_ptr failure);
  void ForEach(const std::function<void(Session&)>& action);
  bool WaitUntilEmpty(std::chrono::milliseconds time);

  const Options options;
  const Api& api;
  asio::io_context io;
  asio::thread_pool workers;
  tcp::acceptor acceptor;
  std::vector<std::thread> threads;
  bool stopped = false;

  struct Open {
    std::shared_ptr<Session> session;
    asio::any_io_executor strand;
  };
  std::mutex mutex;
  std::condition_variable changed;
  std::map<uint64_t, Open> open;  // guarded by mutex; by id
  uint64_t next_id = 0;           // guarded by mutex
  bool closing = false;           // guarded by mutex: no new sessions
};

absl::Status HttpServer::Impl::Bind() {
  EM_ASSIGN_OR_RETURN(const Listen listen, ParseListen(options.listen));
  error_code error;
  tcp::resolver resolver(io);
  const auto found =
      resolver.resolve(listen.host, std::to_string(listen.port), tcp::resolver::passive, error);
  if (error || found.empty()) {
    return base::Error(base::Reason::kInvalidArgument,
                       absl::StrCat("--http ", options.listen, ": no such host"));
  }
  const tcp::endpoint endpoint = found.begin()->endpoint();
  acceptor.open(endpoint.protocol(), error);
  if (!error) acceptor.set_option(tcp::acceptor::reuse_address(true), error);
  if (!error) acceptor.bind(endpoint, error);
  if (!error) acceptor.listen(asio::socket_base::max_listen_connections, error);
  if (error) {
    return base::Error(base::Reason::kInvalidArgument,
                       absl::StrCat("cannot serve HTTP on ", options.listen, ": ", error.message(),
                                    "; choose another --http HOST:PORT"));
  }
  if (!endpoint.address().is_loopback()) {
    spdlog::warn("HTTP on {} takes any API key, and is not encrypted; keep it in a trusted network",
                 options.listen);
  }
  return absl::OkStatus();
}

asio::awaitable<void> HttpServer::Impl::Accept() {
  for (;;) {
    error_code error;
    tcp::socket socket = co_await acceptor.async_accept(
        asio::make_strand(io), asio::redirect_error(asio::use_awaitable, error));
    if (!acceptor.is_open()) co_return;
    if (error) {
      spdlog::warn("HTTP accept: {}", error.message());
      asio::steady_timer pause(acceptor.get_executor(), kAcceptPause);
      co_await pause.async_wait(asio::redirect_error(asio::use_awaitable, error));
      continue;
    }
    Serve(std::move(socket));
  }
}

void HttpServer::Impl::Serve(tcp::socket socket) {
  const asio::any_io_executor strand = socket.get_executor();
  std::unique_lock lock(mutex);
  if (closing) return;
  if (open.size() >= static_cast<size_t>(options.connections_max)) {
    lock.unlock();
    return RefuseConnection(socket, *api.metrics);
  }
  const uint64_t id = next_id++;
  const auto session =
      std::make_shared<Session>(std::make_shared<HttpConnection>(std::move(socket), options.limits),
                                api, workers.get_executor());
  open[id] = {session, strand};
  lock.unlock();
  asio::co_spawn(strand, session->Run(),
                 [this, id](std::exception_ptr failure) { Ended(id, std::move(failure)); });
}

void HttpServer::Impl::Ended(uint64_t id, std::exception_ptr failure) {
  if (failure) {
    try {
      std::rethrow_exception(failure);
    } catch (const std::exception& error) {  // Asio and Beast throw, e.g. for lack of memory
      spdlog::error("HTTP session ended by {}", error.what());
    }
  }
  std::lock_guard lock(mutex);
  open.erase(id);
  changed.notify_all();
}

void HttpServer::Impl::ForEach(const std::function<void(Session&)>& action) {
  std::lock_guard lock(mutex);
  for (const auto& [id, entry] : open) {
    asio::post(entry.strand, [session = entry.session, action] { action(*session); });
  }
}

bool HttpServer::Impl::WaitUntilEmpty(std::chrono::milliseconds time) {
  std::unique_lock lock(mutex);
  return changed.wait_for(lock, time, [&] { return open.empty(); });
}

HttpServer::HttpServer(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

absl::StatusOr<std::unique_ptr<HttpServer>> HttpServer::Start(const Options& options,
                                                              const Api& api) {
  std::unique_ptr<HttpServer> server(new HttpServer(std::make_unique<Impl>(options, api)));
  Impl& impl = *server->impl_;
  EM_RETURN_IF_ERROR(impl.Bind());
  server->address_ = absl::StrCat(options.listen.substr(0, options.listen.rfind(':')), ":",
                                  impl.acceptor.local_endpoint().port());
  asio::co_spawn(impl.acceptor.get_executor(), impl.Accept(), asio::detached);
  for (int i = 0; i < options.threads; ++i) {
    impl.threads.emplace_back([&impl] { impl.io.run(); });
  }
  return server;
}

void HttpServer::Stop(std::chrono::milliseconds grace) {
  if (impl_->stopped) return;
  impl_->stopped = true;
  {
    std::lock_guard lock(impl_->mutex);
    impl_->closing = true;
  }
  asio::post(impl_->acceptor.get_executor(), [this] {
    error_code ignored;
    impl_->acceptor.close(ignored);
  });
  impl_->ForEach([](Session& session) { session.Drain(); });
  if (!impl_->WaitUntilEmpty(grace)) {
    impl_->ForEach([](Session& session) {
      session.Abort(base::Error(base::Reason::kDraining, "this gateway is shutting down"));
    });
    if (!impl_->WaitUntilEmpty(kAbortGrace)) {
      impl_->ForEach([](Session& session) { session.Close(); });
    }
  }
  for (std::thread& thread : impl_->threads) thread.join();  // no session, no acceptor: no work
  impl_->workers.join();
}

HttpServer::~HttpServer() { Stop(std::chrono::milliseconds(0)); }

}  // namespace expertmesh::gateway

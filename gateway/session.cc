#include "gateway/session.h"

#include <sys/socket.h>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/asio/write.hpp>
#include <optional>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "services/base/random.h"
#include "services/base/status.h"
#include "services/telemetry/metric_catalogue.h"

namespace expertmesh::gateway {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = boost::beast::http;
namespace metric = telemetry::metric;
using boost::system::error_code;

namespace {

constexpr size_t kHeaderBytesMax = 64 << 10;
constexpr auto kIdle = std::chrono::seconds(75);
constexpr auto kRequestRead = std::chrono::seconds(60);
constexpr auto kWrite = std::chrono::seconds(60);
constexpr auto kKeepAlive = std::chrono::seconds(10);

std::string RandomId(const char* prefix) {
  return absl::StrCat(prefix, absl::Hex(base::EntropyU64(), absl::kZeroPad16));
}

// Ours unless the client sent a clean one.
std::string RequestId(std::string_view given) {
  const bool clean = !given.empty() && given.size() <= 128 &&
                     given.find_first_not_of("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
                                             "0123456789._-") == std::string_view::npos;
  return clean ? std::string(given) : RandomId("req-");
}

double SecondsSince(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

ApiError NotFound(const std::string& what, const std::string& code) {
  ApiError error;
  error.http_status = 404;
  error.message = what;
  error.code = code;
  return error;
}

auto Redirect(error_code& error) { return asio::redirect_error(asio::use_awaitable, error); }

}  // namespace

Session::Session(asio::ip::tcp::socket socket, const Api& api)
    : api_(api), stream_(std::move(socket)), wake_(stream_.get_executor()) {
  error_code ignored;
  stream_.socket().set_option(asio::ip::tcp::no_delay(true), ignored);
}

asio::awaitable<void> Session::Run() {
  const auto self = shared_from_this();
  for (;;) {
    Request request;
    if (!co_await ReadRequest(request)) break;
    start_ = std::chrono::steady_clock::now();
    first_token_ = true;
    usage_ = {};
    finish_reason_.clear();
    request_id_ = RequestId({request["x-request-id"].data(), request["x-request-id"].size()});
    http_version_ = request.version();
    keep_alive_ = request.keep_alive();
    co_await Route(request);
    if (watching_) stream_.socket().cancel();
    if (!keep_alive_ || broken_ || hung_up_) break;
  }
  error_code ignored;
  stream_.socket().shutdown(asio::ip::tcp::socket::shutdown_send, ignored);
}

asio::awaitable<bool> Session::ReadRequest(Request& request) {
  http::request_parser<http::string_body> parser;
  parser.header_limit(kHeaderBytesMax);
  parser.body_limit(api_.body_bytes_max);
  error_code error;
  stream_.expires_after(kIdle);
  co_await http::async_read_header(stream_, buffer_, parser, Redirect(error));
  if (!error && parser.get()[http::field::expect] == "100-continue") {
    const std::string go_on = "HTTP/1.1 100 Continue\r\n\r\n";
    co_await asio::async_write(stream_, asio::buffer(go_on), Redirect(error));
  }
  if (!error) {
    stream_.expires_after(kRequestRead);
    co_await http::async_read(stream_, buffer_, parser, Redirect(error));
  }
  if (!error) {
    request = parser.release();
    co_return true;
  }
  // What is wrong with the bytes gets an answer; a client that left does not.
  const bool bytes_are_bad = error.category() == make_error_code(http::error::bad_target).category() &&
                             error != http::error::end_of_stream &&
                             error != http::error::partial_message;
  if (!bytes_are_bad) co_return false;
  keep_alive_ = false;
  start_ = std::chrono::steady_clock::now();
  request_id_ = RandomId("req-");
  endpoint_ = "none";
  ApiError bad;
  bad.http_status = 400;
  bad.message = absl::StrCat("malformed HTTP request: ", error.message());
  if (error == http::error::header_limit) bad.http_status = 431;
  if (error == http::error::body_limit) {
    bad.http_status = 413;
    bad.code = "request_too_large";
    bad.message = absl::StrCat("the body is larger than ", api_.body_bytes_max, " bytes");
  }
  co_await SendError(bad);
  co_return false;
}

asio::awaitable<void> Session::Route(const Request& request) {
  std::string_view path(request.target().data(), request.target().size());
  path = path.substr(0, path.find('?'));
  if (absl::StartsWith({path.data(), path.size()}, "/v1/")) path.remove_prefix(3);
  const bool post = request.method() == http::verb::post;
  const bool get = request.method() == http::verb::get || request.method() == http::verb::head;
  endpoint_ = "other";
  if (path == "/chat/completions" || path == "/completions") {
    endpoint_ = std::string(path.substr(1));
    if (post) co_return co_await Complete(request, path == "/chat/completions");
    co_return co_await Send(405, ErrorBody(NotFound("use POST", "method_not_allowed")), 0, "POST");
  }
  if (path == "/models" || absl::StartsWith({path.data(), path.size()}, "/models/")) {
    endpoint_ = "models";
    if (!get) {
      co_return co_await Send(405, ErrorBody(NotFound("use GET", "method_not_allowed")), 0, "GET");
    }
    if (path == "/models") co_return co_await Send(200, ModelsBody(api_.model, api_.created));
    const std::string id(path.substr(sizeof("/models/") - 1));
    if (id == api_.model) co_return co_await Send(200, ModelBody(id, api_.created));
    co_return co_await SendError(NotFound(absl::StrCat("model ", id, " does not exist"),
                                          "model_not_found"));
  }
  co_await SendError(NotFound(absl::StrCat("no such path: ", std::string(path),
                                           "; there are /v1/chat/completions, /v1/completions and "
                                           "/v1/models"),
                              "unknown_url"));
}

asio::awaitable<void> Session::Complete(const Request& request, bool chat) {
  auto parsed = chat ? ParseChatRequest(request.body()) : ParseCompletionRequest(request.body());
  if (const auto* bad = std::get_if<ApiError>(&parsed)) co_return co_await SendError(*bad);
  const ApiRequest& ask = std::get<ApiRequest>(parsed);
  if (ask.model != api_.model) {
    co_return co_await SendError(
        NotFound(absl::StrCat("model ", ask.model, " does not exist; this mesh serves ", api_.model),
                 "model_not_found"));
  }
  auto generate = ToGenerateRequest(api_, ask);
  if (!generate.ok()) co_return co_await SendError(FromStatus(generate.status()));
  const auto target = api_.mesh->Pick();
  if (!target.ok()) co_return co_await SendError(FromStatus(target.status()));
  generate->set_request_id(request_id_);
  head_ = {chat, RandomId(chat ? "chatcmpl-" : "cmpl-"), std::time(nullptr), api_.model,
           absl::StrCat("fp_", target->revision.substr(0, 12))};
  api_.metrics->GetGauge(metric::kGatewayInflightRequests).Add(1);
  const auto generation = Begin(*target, *std::move(generate));
  WatchForHangUp();
  if (ask.stream) {
    co_await AnswerStream(*generation, ask);
  } else {
    co_await AnswerWhole(*generation, ask);
  }
  api_.metrics->GetGauge(metric::kGatewayInflightRequests).Add(-1);
  api_.metrics->GetHistogram(metric::kGatewayRequestDuration).Observe(SecondsSince(start_));
  api_.metrics->GetCounter(metric::kGatewayPromptTokens).Add(usage_.prompt_tokens);
  api_.metrics->GetCounter(metric::kGatewayCompletionTokens).Add(usage_.completion_tokens);
  if (hung_up_) api_.metrics->GetCounter(metric::kGatewayClientDisconnects).Add();
}

std::unique_ptr<Generation> Session::Begin(const MeshView::Target& target,
                                           inference::v1::GenerateRequest request) {
  rpc::Identity identity;
  identity.request_id = request_id_;
  return std::make_unique<Generation>(
      target.channel, std::move(request), identity, api_.request_timeout,
      [weak = weak_from_this(), executor = stream_.get_executor()] {
        asio::post(executor, [weak] {
          if (const auto self = weak.lock()) self->Wake();
        });
      });
}

void Session::Wake() { wake_.cancel(); }

// A client that closes its end makes the socket readable; a pipelined request does too and stops the watch.
void Session::WatchForHangUp() {
  hung_up_ = false;
  watching_ = true;
  stream_.expires_never();
  stream_.socket().async_wait(
      asio::ip::tcp::socket::wait_read, [self = shared_from_this()](error_code error) {
        self->watching_ = false;
        if (error) return;
        char byte = 0;
        const auto n = recv(self->stream_.socket().native_handle(), &byte, 1, MSG_PEEK | MSG_DONTWAIT);
        if (n > 0 || (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))) return;
        self->hung_up_ = true;
        self->Wake();
      });
}

asio::awaitable<Generation::Batch> Session::Next(Generation& generation) {
  for (;;) {
    Generation::Batch batch = generation.Take();
    if (!batch.empty() || hung_up_) co_return batch;
    wake_.expires_after(kKeepAlive);
    error_code error;
    co_await wake_.async_wait(Redirect(error));
    if (!error) co_return batch;  // the time is over, nobody woke us
  }
}

void Session::Note(const inference::v1::GenerateResponse& event) {
  if (event.has_started()) {
    usage_.prompt_tokens = event.started().prompt_tokens();
    usage_.cached_tokens = event.started().cached_prompt_tokens();
  } else if (event.has_token()) {
    ++usage_.completion_tokens;
    if (first_token_) {
      api_.metrics->GetHistogram(metric::kGatewayTimeToFirstToken).Observe(SecondsSince(start_));
    } else {
      api_.metrics->GetHistogram(metric::kGatewayInterTokenLatency).Observe(SecondsSince(last_token_));
    }
    first_token_ = false;
    last_token_ = std::chrono::steady_clock::now();
  } else if (event.has_finished()) {
    usage_.completion_tokens = event.finished().completion_tokens();
    finish_reason_ =
        event.finished().reason() == inference::v1::FINISH_REASON_STOP ? "stop" : "length";
  }
}

asio::awaitable<void> Session::AnswerWhole(Generation& generation, const ApiRequest& request) {
  AnswerText text(api_, request.stop);
  std::string answer;
  while (!hung_up_) {
    const Generation::Batch batch = co_await Next(generation);
    for (const auto& event : batch.events) {
      if (text.stopped()) break;
      Note(event);
      if (event.has_token()) answer += text.Push(event.token().id());
    }
    if (text.stopped()) {
      finish_reason_ = "stop";
      generation.Cancel();
      break;
    }
    if (!batch.ended) continue;
    if (!batch.status.ok()) co_return co_await SendError(FromStatus(batch.status));
    answer += text.End();
    if (text.stopped()) finish_reason_ = "stop";
    break;
  }
  if (hung_up_) {
    generation.Cancel();
    CountRequest(499);
    co_return;
  }
  co_await Send(200, WholeAnswer(head_, answer, finish_reason_, usage_));
}

asio::awaitable<void> Session::AnswerStream(Generation& generation, const ApiRequest& request) {
  // The status line waits for the first event, so that a refusal gets its own HTTP status.
  Generation::Batch batch;
  while (batch.empty() && !hung_up_) batch = co_await Next(generation);
  if (batch.events.empty() && batch.ended && !batch.status.ok()) {
    co_return co_await SendError(FromStatus(batch.status));
  }
  co_await SendHeader();
  CountRequest(200);
  co_await PumpStream(generation, request, std::move(batch));
  if (hung_up_ || broken_) {
    hung_up_ = true;
    generation.Cancel();
    co_return;
  }
  co_await EndStream();
}

asio::awaitable<void> Session::PumpStream(Generation& generation, const ApiRequest& request,
                                          Generation::Batch batch) {
  const bool usage = request.include_usage;
  AnswerText text(api_, request.stop);
  if (head_.chat) co_await Write(Sse(RoleChunk(head_, usage)));
  for (;;) {
    std::string out;
    for (const auto& event : batch.events) {
      if (text.stopped()) break;
      Note(event);
      if (!event.has_token()) continue;
      const std::string piece = text.Push(event.token().id());
      if (!piece.empty()) out += Sse(TextChunk(head_, piece, usage));
    }
    if (batch.empty()) out = ": keep-alive\n\n";
    const bool over = text.stopped() || batch.ended;
    if (over && !text.stopped() && !batch.status.ok()) {
      co_await Write(out + Sse(ErrorBody(FromStatus(batch.status))));
      co_return;  // an error, never a [DONE]
    }
    if (over) {
      const std::string last = text.stopped() ? "" : text.End();
      if (!last.empty()) out += Sse(TextChunk(head_, last, usage));
      out += Sse(FinishChunk(head_, text.stopped() ? "stop" : finish_reason_, usage));
      if (usage) out += Sse(UsageChunk(head_, usage_));
      out += "data: [DONE]\n\n";
      if (text.stopped()) generation.Cancel();
    }
    if (!out.empty()) co_await Write(out);
    if (over || hung_up_ || broken_) co_return;
    batch = co_await Next(generation);
  }
}

asio::awaitable<void> Session::SendError(const ApiError& error) {
  if (error.http_status == 429 || error.http_status == 503) {
    api_.metrics->GetCounter(metric::kGatewayRejected, {{"reason", error.code}}).Add();
  }
  co_await Send(error.http_status, ErrorBody(error), error.retry_after_s);
}

asio::awaitable<void> Session::Send(int status, const std::string& body, int retry_after_s,
                                    const char* allow) {
  http::response<http::string_body> response(static_cast<http::status>(status), http_version_);
  response.set(http::field::content_type, "application/json");
  response.set("x-request-id", request_id_);
  if (retry_after_s > 0) response.set(http::field::retry_after, std::to_string(retry_after_s));
  if (allow != nullptr) response.set(http::field::allow, allow);
  response.keep_alive(keep_alive_);
  response.body() = body;
  response.prepare_payload();
  CountRequest(status);
  error_code error;
  stream_.expires_after(kWrite);
  co_await http::async_write(stream_, response, Redirect(error));
  broken_ = broken_ || error;
}

asio::awaitable<void> Session::SendHeader() {
  chunked_ = http_version_ >= 11;
  keep_alive_ = keep_alive_ && chunked_;
  http::response<http::empty_body> response(http::status::ok, http_version_);
  response.set(http::field::content_type, "text/event-stream");
  response.set(http::field::cache_control, "no-cache");
  response.set("x-accel-buffering", "no");
  response.set("x-request-id", request_id_);
  response.keep_alive(keep_alive_);
  if (chunked_) response.chunked(true);
  http::response_serializer<http::empty_body> serializer(response);
  error_code error;
  stream_.expires_after(kWrite);
  co_await http::async_write_header(stream_, serializer, Redirect(error));
  broken_ = broken_ || error;
}

asio::awaitable<void> Session::Write(const std::string& text) {
  if (broken_ || text.empty()) co_return;
  error_code error;
  stream_.expires_after(kWrite);
  if (chunked_) {
    co_await asio::async_write(stream_, http::make_chunk(asio::buffer(text)), Redirect(error));
  } else {
    co_await asio::async_write(stream_, asio::buffer(text), Redirect(error));
  }
  stream_.expires_never();
  broken_ = broken_ || error;
}

asio::awaitable<void> Session::EndStream() {
  if (!chunked_) co_return;
  error_code error;
  stream_.expires_after(kWrite);
  co_await asio::async_write(stream_, http::make_chunk_last(), Redirect(error));
  broken_ = broken_ || error;
}

void Session::CountRequest(int status) {
  api_.metrics
      ->GetCounter(metric::kGatewayRequests, {{"endpoint", endpoint_},
                                              {"model", api_.model},
                                              {"code", std::to_string(status)}})
      .Add();
}

}  // namespace expertmesh::gateway

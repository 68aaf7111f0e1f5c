#include "gateway/completion.h"

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <ctime>
#include <utility>
#include <variant>

#include "absl/strings/str_cat.h"
#include "gateway/core/http_target.h"
#include "services/base/random.h"
#include "services/base/status.h"

namespace expertmesh::gateway {

namespace asio = boost::asio;
using inference::v1::GenerateResponse;

namespace {

constexpr int kClientClosedRequest = 499;
constexpr size_t kFingerprintDigits = 12;

double SecondsSince(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

std::string AnswerId(bool chat) {
  return absl::StrCat(chat ? "chatcmpl-" : "cmpl-",
                      absl::Hex(base::EntropyU64(), absl::kZeroPad16));
}

}  // namespace

Completion::Completion(const Api& api, HttpConnection& connection, asio::any_io_executor workers,
                       std::string request_id)
    : api_(api),
      connection_(connection),
      workers_(std::move(workers)),
      request_id_(std::move(request_id)),
      waker_(connection.executor()),
      start_(std::chrono::steady_clock::now()) {}

RequestRecord Completion::record() const {
  const Usage usage = answer_ ? answer_->usage() : Usage{};
  return {.request_id = request_id_,
          .reason = error_code_.empty() ? finish_reason_ : error_code_,
          .worker = worker_,
          .prompt_tokens = usage.prompt_tokens,
          .completion_tokens = usage.completion_tokens,
          .start = start_};
}

void Completion::Abort(const absl::Status& why) {
  abort_ = why;
  waker_.Wake();
}

asio::awaitable<int> Completion::Run(bool chat, const std::string& body) {
  auto prepare = [&]() -> asio::awaitable<std::variant<Prepared, ApiError>> {
    co_return Prepare(chat, body);
  };
  auto prepared = co_await asio::co_spawn(workers_, prepare, asio::use_awaitable);
  if (const auto* bad = std::get_if<ApiError>(&prepared)) co_return co_await Refuse(*bad);
  connection_.BeginWatch([this] { waker_.Wake(); });
  api_.metrics->inflight_requests.Add(1);
  auto& ready = std::get<Prepared>(prepared);
  const int status = co_await Generate(std::move(ready));
  co_await connection_.EndWatch();
  api_.metrics->inflight_requests.Add(-1);
  api_.metrics->request_duration.Observe(SecondsSince(start_));
  if (status == kClientClosedRequest) {
    api_.metrics->client_disconnects.Add();
    error_code_ = "client_closed";
  }
  co_return status;
}

std::variant<Completion::Prepared, ApiError> Completion::Prepare(bool chat,
                                                                 const std::string& body) const {
  auto parsed = chat ? ParseChatRequest(body) : ParseCompletionRequest(body);
  if (auto* bad = std::get_if<ApiError>(&parsed)) return std::move(*bad);
  const ApiRequest& request = std::get<ApiRequest>(parsed);
  auto generate = ToGenerateRequest(api_, request);
  if (!generate.ok()) return FromStatus(generate.status());
  generate->set_request_id(request_id_);
  Prepared out;
  out.stream = request.stream;
  out.head.chat = chat;
  out.head.id = AnswerId(chat);
  out.head.created = std::time(nullptr);
  out.head.model = api_.model;
  out.head.include_usage = request.include_usage;
  out.options = ToAnswerOptions(api_, request);
  out.generate = *std::move(generate);
  return out;
}

asio::awaitable<int> Completion::Generate(Prepared prepared) {
  const auto target = api_.mesh->Pick();
  if (!target.ok()) {
    const ApiError error = FromStatus(target.status());
    co_return co_await Refuse(error);
  }
  prepared.head.fingerprint = absl::StrCat("fp_", target->revision.substr(0, kFingerprintDigits));
  worker_ = target->worker;
  stream_ = prepared.stream;
  answer_.emplace(std::move(prepared.head), *api_.tokenizer, std::move(prepared.options));
  rpc::Identity identity;
  identity.request_id = request_id_;
  Generation generation(target->channel, target->calls, std::move(prepared.generate), identity,
                        api_.request_timeout, waker_.Handle());
  const int status = co_await Pump(generation);
  const Usage& usage = answer_->usage();
  api_.metrics->prompt_tokens.Add(usage.prompt_tokens);
  api_.metrics->cached_prompt_tokens.Add(usage.cached_tokens);
  api_.metrics->completion_tokens.Add(usage.completion_tokens);
  co_return status;
}

// Empty when a stream has been silent for so long that the client should get a comment.
asio::awaitable<Generation::Batch> Completion::Next(Generation& generation) {
  for (;;) {
    Generation::Batch batch = generation.Take();
    if (!batch.empty() || connection_.hung_up() || !abort_.ok()) co_return batch;
    const bool woken = co_await waker_.Wait(connection_.limits().keep_alive);
    if (!woken) co_return batch;
  }
}

// A stream's header waits for its first token or for the first keep-alive, so that an answer which
// fails before gets an HTTP status of its own, which clients know how to retry.
asio::awaitable<int> Completion::Pump(Generation& generation) {
  for (;;) {
    const Generation::Batch batch = co_await Next(generation);
    if (connection_.hung_up() || connection_.broken()) {
      generation.Cancel();
      co_return kClientClosedRequest;
    }
    std::string events = TakeEvents(batch);
    if (answer_->stopped()) {
      generation.Cancel();
      co_return co_await Finish(std::move(events));
    }
    if (!abort_.ok()) co_return co_await Fail(std::move(events), abort_);
    if (batch.ended && !batch.status.ok()) {
      co_return co_await Fail(std::move(events), batch.status);
    }
    if (batch.ended) co_return co_await Finish(std::move(events));
    if (!stream_) continue;
    if (batch.empty()) events = kSseKeepAlive;
    if (!events.empty()) co_await SendEvents(events);
  }
}

std::string Completion::TakeEvents(const Generation::Batch& batch) {
  std::string events;
  for (const GenerateResponse& event : batch.events) {
    if (answer_->stopped()) break;
    if (event.has_started()) {
      answer_->SetPrompt(event.started().prompt_tokens(), event.started().cached_prompt_tokens());
    } else if (event.has_token()) {
      NoteToken();
      events += answer_->OnToken(event.token().id());
    } else if (event.has_finished()) {
      const bool stop = event.finished().reason() == inference::v1::FINISH_REASON_STOP;
      finish_reason_ = stop ? "stop" : "length";
    }
  }
  return events;
}

void Completion::NoteToken() {
  if (last_token_ == std::chrono::steady_clock::time_point()) {
    api_.metrics->time_to_first_token.Observe(SecondsSince(start_));
  } else {
    api_.metrics->inter_token_latency.Observe(SecondsSince(last_token_));
  }
  last_token_ = std::chrono::steady_clock::now();
}

asio::awaitable<void> Completion::SendEvents(const std::string& events) {
  std::string role;
  if (!begun_) {
    begun_ = true;
    role = answer_->Begin();
    co_await connection_.BeginStream(request_id_);
  }
  role += events;
  co_await connection_.Send(role);
}

asio::awaitable<int> Completion::Finish(std::string events) {
  const std::string last = answer_->Finish(finish_reason_);
  if (stream_) {
    events += last;
    co_await SendEvents(events);
    co_await connection_.EndStream();
  } else {
    const HttpReply reply{.body = last};
    co_await connection_.Reply(reply, request_id_);
  }
  co_return connection_.broken() ? kClientClosedRequest : 200;
}

// Never a [DONE]: what came so far must not look like the whole answer.
asio::awaitable<int> Completion::Fail(std::string events, const absl::Status& status) {
  const ApiError error = FromStatus(status);
  if (!begun_) co_return co_await Refuse(error);
  error_code_ = error.code;
  api_.metrics->CountError(error);
  connection_.set_keep_alive(false);
  events += answer_->Fail(error);
  co_await SendEvents(events);
  co_await connection_.EndStream();
  co_return error.http_status;
}

asio::awaitable<int> Completion::Refuse(const ApiError& error) {
  error_code_ = error.code;
  api_.metrics->CountError(error);
  const HttpReply reply{
      .status = error.http_status, .body = ErrorBody(error), .retry_after_s = error.retry_after_s};
  co_await connection_.Reply(reply, request_id_);
  co_return error.http_status;
}

}  // namespace expertmesh::gateway

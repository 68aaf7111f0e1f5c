#include "gateway/completion.h"

#include <algorithm>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <ctime>
#include <utility>
#include <variant>

#include "absl/strings/str_cat.h"
#include "gateway/core/messages_response.h"
#include "gateway/core/openai_response.h"
#include "gateway/core/responses_response.h"
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

std::string NewDigits() { return absl::StrCat(absl::Hex(base::EntropyU64(), absl::kZeroPad16)); }

ParsedRequest Parse(Door door, std::string_view body, const SamplingDefaults& defaults) {
  switch (door) {
    case Door::kCompletions:
      return ParseCompletionRequest(body, defaults);
    case Door::kResponses:
      return ParseResponsesRequest(body, defaults);
    case Door::kMessages:
      return ParseMessagesRequest(body, false, defaults);
    case Door::kCountTokens:
      return ParseMessagesRequest(body, true, defaults);
    default:
      return ParseChatRequest(body, defaults);
  }
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
          .reason = !error_code_.empty() ? error_code_
                    : answer_            ? std::string(answer_->finish_reason())
                                         : "",
          .worker = worker_,
          .prompt_tokens = usage.prompt_tokens,
          .completion_tokens = usage.completion_tokens,
          .start = start_};
}

void Completion::Abort(const absl::Status& why) {
  abort_ = why;
  waker_.Wake();
}

asio::awaitable<int> Completion::Run(Door door, const std::string& body) {
  door_ = door;
  auto prepare = [&]() -> asio::awaitable<std::variant<Prepared, ApiError>> {
    co_return Prepare(body);
  };
  auto prepared = co_await asio::co_spawn(workers_, prepare, asio::use_awaitable);
  if (const auto* bad = std::get_if<ApiError>(&prepared)) co_return co_await Refuse(*bad);
  if (door_ == Door::kCountTokens) {
    const auto& prompt = std::get<Prepared>(prepared).generate.segments(0).tokens();
    const HttpReply reply{.body = TokenCountBody(static_cast<size_t>(prompt.ids_size()))};
    co_await connection_.Reply(reply, request_id_);
    co_return 200;
  }
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

std::variant<Completion::Prepared, ApiError> Completion::Prepare(const std::string& body) const {
  auto parsed = Parse(door_, body, api_.sampling);
  if (auto* bad = std::get_if<ApiError>(&parsed)) return std::move(*bad);
  Prepared out;
  out.request = std::move(std::get<ApiRequest>(parsed));
  auto generate = ToGenerateRequest(api_, out.request);
  if (!generate.ok()) return FromStatus(generate.status());
  out.generate = *std::move(generate);
  out.generate.set_request_id(request_id_);
  out.options = {.stream = out.request.stream,
                 .choices = out.request.choices,
                 .call_prefix = absl::StrCat("call_", NewDigits()),
                 .decode = ToDecodeOptions(api_, out.request)};
  return out;
}

std::unique_ptr<AnswerFormat> Completion::MakeFormat(const Prepared& prepared) const {
  const ApiRequest& request = prepared.request;
  const int64_t now = std::time(nullptr);
  if (door_ == Door::kMessages) {
    return std::make_unique<MessagesFormat>("msg_" + NewDigits(), api_.model);
  }
  if (door_ == Door::kResponses) {
    return std::make_unique<ResponsesFormat>(ResponsesHead{.digits = NewDigits(),
                                                           .created = now,
                                                           .model = api_.model,
                                                           .temperature = request.temperature,
                                                           .top_p = request.top_p,
                                                           .max_tokens = request.max_tokens,
                                                           .parallel_calls = request.parallel_calls,
                                                           .text_format = request.answer_format});
  }
  const bool chat = door_ == Door::kChat;
  return std::make_unique<OpenAiFormat>(
      AnswerHead{.chat = chat,
                 .id = (chat ? "chatcmpl-" : "cmpl-") + NewDigits(),
                 .created = now,
                 .model = api_.model,
                 .fingerprint = "fp_" + target_->revision.substr(0, kFingerprintDigits),
                 .thinking = prepared.options.decode.end_of_reasoning.has_value(),
                 .include_usage = request.include_usage,
                 .logprobs = request.logprobs,
                 .choices = request.choices});
}

asio::awaitable<int> Completion::Generate(Prepared prepared) {
  auto target = api_.mesh->Pick();
  if (!target.ok()) {
    const ApiError error = FromStatus(target.status());
    co_return co_await Refuse(error);
  }
  worker_ = target->worker;
  target_ = *std::move(target);
  stream_ = prepared.options.stream;
  generate_ = std::move(prepared.generate);
  choices_.resize(prepared.options.choices);
  answer_.emplace(MakeFormat(prepared), *api_.tokenizer, prepared.options);
  BeginChoice(0);
  const int status = co_await Pump();
  choices_.clear();  // cancels what runs
  const Usage& usage = answer_->usage();
  api_.metrics->prompt_tokens.Add(usage.prompt_tokens);
  api_.metrics->cached_prompt_tokens.Add(usage.cached_tokens);
  api_.metrics->completion_tokens.Add(usage.completion_tokens);
  co_return status;
}

void Completion::BeginChoice(uint32_t choice) {
  rpc::Identity identity;
  identity.request_id = request_id_;
  inference::v1::GenerateRequest generate = generate_;
  generate.set_choice(choice);
  const auto spent = std::chrono::duration_cast<std::chrono::microseconds>(
      std::chrono::steady_clock::now() - start_);
  choices_[choice].generation = std::make_unique<Generation>(
      target_->channel, target_->calls, std::move(generate), identity,
      std::max(api_.request_timeout - spent, std::chrono::microseconds(0)), waker_.Handle());
}

// Behind the first token of the first choice the prompt's state is in the worker's prefix cache.
void Completion::BeginOthers() {
  for (uint32_t i = 1; i < choices_.size(); ++i) {
    if (choices_[i].generation == nullptr) BeginChoice(i);
  }
}

bool Completion::all_done() const {
  return std::all_of(choices_.begin(), choices_.end(), [](const Choice& c) { return c.done; });
}

// Takes what has come for all choices; true if there was anything.
bool Completion::Collect() {
  bool any = false;
  for (uint32_t i = 0; i < choices_.size() && abort_.ok(); ++i) {
    if (choices_[i].generation == nullptr || choices_[i].done) continue;
    const Generation::Batch batch = choices_[i].generation->Take();
    if (batch.empty()) continue;
    any = true;
    abort_ = TakeBatch(i, batch);
  }
  return any;
}

// False when a stream has been silent for so long that the client should get a comment.
asio::awaitable<bool> Completion::Wait() {
  for (;;) {
    if (Collect() || connection_.hung_up() || !abort_.ok()) co_return true;
    const bool woken = co_await waker_.Wait(connection_.limits().keep_alive);
    if (!woken) co_return false;
  }
}

// A stream's header waits for its first token or for the first keep-alive, so that an answer which
// fails before gets an HTTP status of its own, which clients know how to retry.
asio::awaitable<int> Completion::Pump() {
  while (!all_done()) {
    const bool news = co_await Wait();
    if (connection_.hung_up() || connection_.broken()) co_return kClientClosedRequest;
    if (!abort_.ok()) co_return co_await Fail(abort_);
    if (!stream_ || all_done()) continue;
    if (!news) events_ = kSseKeepAlive;
    if (!events_.empty()) co_await SendEvents(std::exchange(events_, ""));
  }
  co_return co_await Finish();
}

absl::Status Completion::TakeBatch(uint32_t choice, const Generation::Batch& batch) {
  Choice& taken = choices_[choice];
  for (const GenerateResponse& event : batch.events) {
    if (answer_->ended(choice)) break;
    if (event.has_started() && choice == 0) {
      answer_->SetPrompt(event.started().prompt_tokens(), event.started().cached_prompt_tokens());
    } else if (event.has_token()) {
      NoteToken();
      BeginOthers();
      AnswerToken token{event.token().id(), event.token().logprob(), {}};
      for (const auto& likely : event.token().top_logprobs()) {
        token.likeliest.emplace_back(likely.id(), likely.logprob());
      }
      events_ += answer_->OnToken(choice, token);
    } else if (event.has_finished()) {
      taken.length = event.finished().reason() != inference::v1::FINISH_REASON_STOP;
    }
  }
  const bool by_itself = answer_->ended(choice);
  if (!by_itself && !batch.ended) return absl::OkStatus();
  if (!by_itself && !batch.status.ok()) return batch.status;
  taken.generation->Cancel();
  taken.done = true;
  events_ += answer_->EndChoice(choice, taken.length);
  BeginOthers();
  return absl::OkStatus();
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

asio::awaitable<int> Completion::Finish() {
  const std::string last = answer_->Finish();
  if (stream_) {
    events_ += last;
    co_await SendEvents(events_);
    co_await connection_.EndStream();
  } else {
    const HttpReply reply{.body = last};
    co_await connection_.Reply(reply, request_id_);
  }
  co_return connection_.broken() ? kClientClosedRequest : 200;
}

// Never an end of the answer: what came so far must not look like the whole.
asio::awaitable<int> Completion::Fail(const absl::Status& status) {
  const ApiError error = FromStatus(status);
  if (!begun_) co_return co_await Refuse(error);
  error_code_ = error.code;
  api_.metrics->CountError(error);
  connection_.set_keep_alive(false);
  events_ += answer_->Fail(error);
  co_await SendEvents(events_);
  co_await connection_.EndStream();
  co_return error.http_status;
}

asio::awaitable<int> Completion::Refuse(const ApiError& error) {
  error_code_ = error.code;
  api_.metrics->CountError(error);
  const bool messages = door_ == Door::kMessages || door_ == Door::kCountTokens;
  const HttpReply reply{.status = error.http_status,
                        .body = messages ? MessagesErrorBody(error) : ErrorBody(error),
                        .retry_after_s = error.retry_after_s};
  co_await connection_.Reply(reply, request_id_);
  co_return error.http_status;
}

}  // namespace expertmesh::gateway

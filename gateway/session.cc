#include "gateway/session.h"

#include <string_view>
#include <utility>
#include <variant>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "gateway/completion.h"
#include "gateway/core/openai_response.h"
#include "gateway/request_log.h"
#include "services/base/status.h"

namespace expertmesh::gateway {

namespace http = boost::beast::http;
using boost::asio::awaitable;

namespace {

constexpr size_t kNameShownMax = 100;

// The client's, if it may travel on; else a new one.
std::string RequestId(const HttpConnection::Request* request) {
  if (request != nullptr) {
    const auto given = (*request)["x-request-id"];
    const std::string_view id(given.data(), given.size());
    if (IsCleanId(id)) return std::string(id);
  }
  return NewRequestId();
}

bool IsPlain(const HttpConnection::Request& request) {
  const auto coding = request[http::field::content_encoding];
  return coding.empty() || absl::EqualsIgnoreCase({coding.data(), coding.size()}, "identity");
}

}  // namespace

awaitable<void> Session::Run() {
  const auto self = shared_from_this();
  while (!draining_) {
    const HttpConnection::Incoming incoming = co_await connection_->Read();
    const auto* request = std::get_if<Request>(&incoming);
    request_id_ = RequestId(request);
    begun_ = std::chrono::steady_clock::now();
    if (const auto* bad = std::get_if<ApiError>(&incoming)) {
      co_await Refuse("other", *bad);
      co_await connection_->Linger();
    }
    if (request == nullptr) break;
    co_await Answer(*request);
    if (!connection_->keep_alive() || connection_->broken() || connection_->hung_up()) break;
  }
  connection_->Close();
}

awaitable<void> Session::Answer(const Request& request) {
  if (draining_) connection_->set_keep_alive(false);
  const auto raw = request.target();
  const HttpTarget target = ParseTarget({raw.data(), raw.size()});
  const char* endpoint = EndpointLabel(target.door);
  if (target.door == Door::kUnknown) {
    const ApiError error =
        ClientError(404, "unknown_url",
                    absl::StrCat("there is nothing at ", target.path,
                                 "; see /v1/chat/completions, /v1/completions, /v1/responses, "
                                 "/anthropic/v1/messages and /v1/models"));
    co_return co_await Refuse(endpoint, error);
  }
  const std::string method = MethodOf(target.door);
  const bool head = request.method() == http::verb::head && method == "GET";
  if (!head && request.method_string() != method.c_str()) {
    const ApiError error =
        ClientError(405, "method_not_allowed", absl::StrCat(target.path, " takes ", method));
    const std::string allow = method == "GET" ? "GET, HEAD" : method;
    co_return co_await Refuse(endpoint, error, allow);
  }
  if (IsGeneration(target.door)) co_return co_await Complete(target.door, request);
  if (target.door == Door::kEmbeddings) {
    const ApiError error = ClientError(
        404, "unknown_url", "this mesh makes no embeddings: its model generates text only");
    co_return co_await Refuse(endpoint, error);
  }
  HttpReply reply = Page(target);
  reply.head_only = head;
  Note(endpoint, reply.status, reply.status == 200 ? "" : "model_not_found");
  co_await connection_->Reply(reply, request_id_);
}

void Session::Note(const char* endpoint, int status, const std::string& reason) {
  api_.metrics->CountAnswer(endpoint, status);
  LogRequest({.request_id = request_id_,
              .endpoint = endpoint,
              .status = std::to_string(status),
              .reason = reason,
              .start = begun_});
}

HttpReply Session::Page(const HttpTarget& target) const {
  if (target.door == Door::kModels) return {.body = ModelsBody(api_.model, api_.created)};
  if (target.door == Door::kHint) {
    return {.body = absl::StrCat("ExpertMesh serves model ", api_.model,
                                 ": POST /v1/chat/completions, POST /v1/completions, "
                                 "POST /v1/responses, POST /anthropic/v1/messages, "
                                 "GET /v1/models.\n"),
            .content_type = "text/plain; charset=utf-8"};
  }
  if (target.model == api_.model) return {.body = ModelBody(api_.model, api_.created)};
  ApiError error =
      ClientError(404, "model_not_found",
                  absl::StrCat("The model '", Printable(target.model, kNameShownMax),
                               "' does not exist; this mesh serves '", api_.model, "'"));
  error.param = "model";
  return {.status = error.http_status, .body = ErrorBody(error)};
}

awaitable<void> Session::Complete(Door door, const Request& request) {
  const char* endpoint = EndpointLabel(door);
  if (!IsPlain(request)) {
    const ApiError error = ClientError(415, "unsupported_encoding",
                                       "send the body as it is, without Content-Encoding");
    co_return co_await Refuse(endpoint, error);
  }
  if (draining_) {
    const ApiError error = FromStatus(
        base::Error(base::Reason::kDraining, "this gateway is shutting down; try another"));
    co_return co_await Refuse(endpoint, error);
  }
  Completion completion(api_, *connection_, workers_, request_id_);
  running_ = &completion;
  const int status = co_await completion.Run(door, request.body());
  running_ = nullptr;
  api_.metrics->CountAnswer(endpoint, status);
  RequestRecord record = completion.record();
  record.endpoint = endpoint;
  record.status = std::to_string(status);
  LogRequest(record);
}

awaitable<void> Session::Refuse(const char* endpoint, const ApiError& error,
                                const std::string& allow) {
  Note(endpoint, error.http_status, error.code);
  api_.metrics->CountError(error);
  const HttpReply reply{.status = error.http_status,
                        .body = ErrorBody(error),
                        .allow = allow,
                        .retry_after_s = error.retry_after_s};
  co_await connection_->Reply(reply, request_id_);
}

void Session::Drain() {
  draining_ = true;
  connection_->set_keep_alive(false);
  connection_->CloseIfIdle();
}

void Session::Abort(const absl::Status& why) {
  Drain();
  if (running_ != nullptr) running_->Abort(why);
}

}  // namespace expertmesh::gateway

// The HTTP door over real sockets, byte by byte where clients depend on it.
#include "gateway/http_server.h"

#include <boost/json.hpp>
#include <regex>
#include <thread>

#include "absl/strings/str_cat.h"
#include "services/base/status.h"
#include "tests/gateway/gateway_fixture.h"

namespace expertmesh::gateway {
namespace {

namespace json = boost::json;
using base::Error;
using base::Reason;
using lifecycle::TestConnection;
using testing::ElementsAre;
using testing::EndsWith;
using testing::HasSubstr;
using testing::Not;
using testing::StartsWith;

// Ids and times of this run as fixed words.
std::string Stable(const std::string& text) {
  std::string out = std::regex_replace(text, std::regex("cmpl-[0-9a-f]{16}"), "cmpl-ID");
  return std::regex_replace(out, std::regex("\"created\":[0-9]+"), "\"created\":T");
}

std::string ErrorCode(const Answered& answer) {
  const json::value body = json::parse(answer.body);
  const json::value& code = body.at("error").at("code");
  return code.is_string() ? std::string(code.as_string().c_str()) : "";
}

TEST_F(GatewayTest, WholeChatAnswer) {
  const Answered answer =
      Ask(Post("/v1/chat/completions", ChatBody(), "Connection: close\r\nX-Request-Id: req-7\r\n"));
  EXPECT_EQ(answer.status, 200);
  EXPECT_EQ(answer.Header("content-type"), "application/json");
  EXPECT_EQ(answer.Header("x-request-id"), "req-7");
  EXPECT_EQ(answer.Header("connection"), "close");
  EXPECT_TRUE(answer.complete);
  EXPECT_EQ(
      Stable(answer.body),
      absl::StrCat(R"({"id":"chatcmpl-ID","object":"chat.completion","created":T,"model":"tiny",)",
                   R"("system_fingerprint":"fp_0123456789ab","choices":[{"index":0,"message":)",
                   R"({"role":"assistant","content":"Hello","refusal":null},"logprobs":null,)",
                   R"("finish_reason":"stop"}],"usage":{"prompt_tokens":9,"completion_tokens":)",
                   Ids("Hello").size(), R"(,"total_tokens":)", 9 + Ids("Hello").size(),
                   R"(,"prompt_tokens_details":{"cached_tokens":4},"completion_tokens_details":)",
                   R"({"reasoning_tokens":0},"prompt_cache_hit_tokens":4,)",
                   R"("prompt_cache_miss_tokens":5}})"));
}

TEST_F(GatewayTest, StreamedChatAnswer) {
  worker_.Follow(Says({Ids("a").front(), Ids("b").front()}));
  const Answered answer = AskChat(R"("stream":true,"stream_options":{"include_usage":true})");
  EXPECT_EQ(answer.status, 200);
  EXPECT_THAT(answer.Header("content-type"), StartsWith("text/event-stream"));
  EXPECT_EQ(answer.Header("cache-control"), "no-cache");
  EXPECT_EQ(answer.Header("transfer-encoding"), "chunked");
  EXPECT_THAT(answer.Header("x-request-id"), StartsWith("req-"));
  EXPECT_TRUE(answer.complete);
  const std::string head =
      R"(data: {"id":"chatcmpl-ID","object":"chat.completion.chunk","created":T,"model":"tiny",)"
      R"("system_fingerprint":"fp_0123456789ab","choices":[)";
  const std::string tail = R"("logprobs":null,"finish_reason":null}],"usage":null})"
                           "\n\n";
  EXPECT_EQ(
      Stable(answer.body),
      absl::StrCat(
          head, R"({"index":0,"delta":{"role":"assistant","content":""},)", tail, head,
          R"({"index":0,"delta":{"content":"a"},)", tail, head,
          R"({"index":0,"delta":{"content":"b"},)", tail, head,
          R"({"index":0,"delta":{},"logprobs":null,"finish_reason":"stop"}],"usage":null})", "\n\n",
          head, R"(],"usage":{"prompt_tokens":9,"completion_tokens":2,"total_tokens":11,)",
          R"("prompt_tokens_details":{"cached_tokens":4},"completion_tokens_details":)",
          R"({"reasoning_tokens":0},"prompt_cache_hit_tokens":4,"prompt_cache_miss_tokens":5}})",
          "\n\ndata: [DONE]\n\n"));
}

TEST_F(GatewayTest, Completions) {
  worker_.Follow(Says(Ids("xy"), inference::v1::FINISH_REASON_LENGTH));
  const Answered answer =
      Ask(Post("/completions", R"({"model":"tiny","prompt":"Hello","max_tokens":2,"seed":5})",
               "Connection: close\r\n"));
  EXPECT_EQ(answer.status, 200);
  const json::value choice = json::parse(answer.body).at("choices").at(0);
  EXPECT_EQ(choice.at("text"), "xy");
  EXPECT_EQ(choice.at("finish_reason"), "length");

  const auto request = worker_.last_request();
  std::vector<uint32_t> prompt = {0};
  for (const uint32_t id : Ids("Hello")) prompt.push_back(id);
  ASSERT_EQ(request.segments_size(), 1);
  EXPECT_THAT(request.segments(0).tokens().ids(), testing::ElementsAreArray(prompt));
  EXPECT_EQ(request.max_tokens(), 2u);
  EXPECT_EQ(request.sampling().seed(), 5u);
  EXPECT_EQ(request.model().model(), kModel);
}

TEST_F(GatewayTest, WhatTheWorkerHears) {
  Ask(Post("/v1/chat/completions",
           ChatBody(R"("temperature":0.25,"top_p":0.5,"top_k":3,"max_completion_tokens":11)"),
           "Connection: close\r\nx-request-id: abc\r\n"));
  const auto request = worker_.last_request();
  EXPECT_EQ(request.sampling().temperature(), 0.25f);
  EXPECT_EQ(request.sampling().top_p(), 0.5f);
  EXPECT_EQ(request.sampling().top_k(), 3u);
  EXPECT_TRUE(request.sampling().has_seed());  // drawn here, so that a replay can use it again
  EXPECT_EQ(request.max_tokens(), 11u);
  EXPECT_EQ(request.request_id(), "abc");
  EXPECT_EQ(worker_.last_metadata("x-request-id"), "abc");
  EXPECT_EQ(worker_.last_metadata("x-expertmesh-tenant"), "anonymous");
  const uint64_t seed = request.sampling().seed();
  AskChat();
  EXPECT_NE(worker_.last_request().sampling().seed(), seed);
}

TEST_F(GatewayTest, ThinkingIsSplitFromTheAnswer) {
  std::vector<uint32_t> ids = Ids("why");
  ids.push_back(api_.tokenizer->IdOf("</think>").value());
  for (const uint32_t id : Ids("so")) ids.push_back(id);
  worker_.Follow(Says(ids));
  const json::value message = json::parse(AskChat(R"("thinking":{"type":"enabled"})").body)
                                  .at("choices")
                                  .at(0)
                                  .at("message");
  EXPECT_EQ(message.at("reasoning_content"), "why");
  EXPECT_EQ(message.at("content"), "so");
}

TEST_F(GatewayTest, Models) {
  const std::string model =
      R"({"id":"tiny","object":"model","created":1700000000,"owned_by":"expertmesh"})";
  const auto get = [&](const std::string& method, const std::string& path) {
    return Ask(absl::StrCat(method, " ", path, " HTTP/1.1\r\nConnection: close\r\n\r\n"));
  };
  for (const char* path : {"/v1/models", "/models"}) {
    EXPECT_EQ(get("GET", path).body, R"({"object":"list","data":[)" + model + "]}");
  }
  EXPECT_EQ(get("GET", "/v1/models/tiny").body, model);
  EXPECT_EQ(get("GET", "/v1/models/other").status, 404);
  EXPECT_EQ(ErrorCode(get("GET", "/v1/models/other%ff")), "model_not_found");
  EXPECT_THAT(get("GET", "/").body, HasSubstr("/v1/chat/completions"));

  TestConnection connection(Address());
  connection.Send("HEAD /v1/models/tiny HTTP/1.1\r\nConnection: close\r\n\r\n");
  const std::string bytes = connection.ReadAll();
  EXPECT_THAT(bytes, HasSubstr(absl::StrCat("Content-Length: ", model.size(), "\r\n")));
  EXPECT_THAT(bytes, EndsWith("\r\n\r\n"));
}

TEST_F(GatewayTest, UnknownDoorsAndMethods) {
  const Answered unknown = Ask("POST /v1/embeddings HTTP/1.1\r\nConnection: close\r\n\r\n");
  EXPECT_EQ(unknown.status, 404);
  EXPECT_EQ(ErrorCode(unknown), "unknown_url");
  EXPECT_EQ(unknown.Header("content-type"), "application/json");
  const Answered get = Ask("GET /v1/chat/completions HTTP/1.1\r\nConnection: close\r\n\r\n");
  EXPECT_EQ(get.status, 405);
  EXPECT_EQ(get.Header("allow"), "POST");
  const Answered post = Ask(Post("/v1/models", "", "Connection: close\r\n"));
  EXPECT_EQ(post.status, 405);
  EXPECT_EQ(post.Header("allow"), "GET, HEAD");
  const Answered odd = Ask("BREW /v1/models HTTP/1.1\r\nConnection: close\r\n\r\n");
  EXPECT_EQ(odd.status, 405);
}

TEST_F(GatewayTest, BadBodiesNameTheField) {
  struct Case {
    std::string body;
    int status;
    std::string code, param;
  };
  const Case cases[] = {
      {"{", 400, "invalid_json", ""},
      {"", 400, "invalid_json", ""},
      {ChatBody("\"user\":\"\xff\""), 400, "invalid_utf8", ""},
      {ChatBody(R"("temperature":3)"), 400, "invalid_value", "temperature"},
      {ChatBody(R"("echo":true)"), 400, "unknown_parameter", "echo"},
      {ChatBody(R"("max_tokens":4096)"), 400, "context_length_exceeded", "messages"},
      {R"({"model":"no","messages":[{"role":"user","content":"x"}]})", 404, "model_not_found",
       "model"},
      {R"({"model":"tiny","messages":[{"role":"x","content":"x"}]})", 400, "invalid_value",
       "messages[0].role"},
  };
  for (const Case& c : cases) {
    const Answered answer = Ask(Post("/v1/chat/completions", c.body, "Connection: close\r\n"));
    EXPECT_EQ(answer.status, c.status) << c.body;
    EXPECT_EQ(ErrorCode(answer), c.code) << c.body;
    const json::value body = json::parse(answer.body);
    const json::value& param = body.at("error").at("param");
    EXPECT_EQ(param.is_null() ? "" : std::string(param.as_string().c_str()), c.param) << c.body;
  }
  EXPECT_EQ(Metric(R"(bad_input_total{reason="CONTEXT_LENGTH_EXCEEDED"})"), 1);
  EXPECT_EQ(Metric(R"(bad_input_total{reason="INVALID_ARGUMENT"})"), 6);
}

TEST_F(GatewayTest, ContextErrorHasTheNumbers) {
  const Answered answer =
      Ask(Post("/v1/completions", R"({"model":"tiny","prompt":[1,2,3],"max_tokens":4095})",
               "Connection: close\r\n"));
  EXPECT_EQ(ErrorCode(answer), "context_length_exceeded");
  EXPECT_THAT(answer.body, HasSubstr("4096 tokens"));
  EXPECT_THAT(answer.body, HasSubstr("requested 4098 tokens (3 in the prompt, 4095 in the"));
  const Answered outside = Ask(
      Post("/v1/completions", R"({"model":"tiny","prompt":[1,2000]})", "Connection: close\r\n"));
  EXPECT_EQ(outside.status, 400);
  EXPECT_THAT(outside.body, HasSubstr("prompt[1]"));
}

TEST_F(GatewayTest, NoChatEncoding) {
  api_.encoding = model::ChatEncoding::kNone;
  const Answered answer = AskChat();
  EXPECT_EQ(answer.status, 400);
  EXPECT_EQ(ErrorCode(answer), "chat_encoding_unknown");
}

TEST_F(GatewayTest, OversizedRequests) {
  HttpServer::Options options;
  options.limits.body_bytes_max = 1000;
  options.limits.header_bytes_max = 2000;
  StartHttp(options);
  mesh_->OnView(View());
  const Answered announced = Ask(Post("/v1/chat/completions", std::string(1001, 'x')));
  EXPECT_EQ(announced.status, 413);
  EXPECT_EQ(ErrorCode(announced), "request_too_large");
  EXPECT_EQ(announced.Header("connection"), "close");

  std::string chunked = "POST /v1/chat/completions HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n";
  for (int i = 0; i < 20; ++i) absl::StrAppend(&chunked, "40\r\n", std::string(64, 'x'), "\r\n");
  EXPECT_EQ(Ask(chunked).status, 413);

  const Answered head = Ask("GET / HTTP/1.1\r\nx-long: " + std::string(3000, 'x') + "\r\n\r\n");
  EXPECT_EQ(head.status, 431);
  EXPECT_EQ(ErrorCode(head), "header_too_large");
}

TEST_F(GatewayTest, AClientThatSendsFarTooMuchStillReadsItsAnswer) {
  HttpServer::Options options;
  options.limits.body_bytes_max = 1000;
  StartHttp(options);
  TestConnection connection(http_->address());
  std::thread sender([&] { connection.Send(Post("/v1/completions", std::string(8 << 20, 'x'))); });
  std::string bytes = connection.ReadAll();
  sender.join();
  EXPECT_EQ(TakeAnswer(bytes).status, 413);
}

TEST_F(GatewayTest, BytesThatAreNoHttp) {
  for (const char* bytes :
       {"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n", "GET\r\n\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        "POST / HTTP/1.1\r\nContent-Length: -5\r\n\r\n",
        "GET / HTTP/1.1\r\nno colon here\r\n\r\n"}) {
    const Answered answer = Ask(bytes);
    EXPECT_EQ(answer.status, 400) << bytes;
    EXPECT_EQ(ErrorCode(answer), "malformed_http") << bytes;
  }
}

TEST_F(GatewayTest, CompressedBodiesAreRefused) {
  const Answered answer = Ask(
      Post("/v1/chat/completions", ChatBody(), "Content-Encoding: gzip\r\nConnection: close\r\n"));
  EXPECT_EQ(answer.status, 415);
  EXPECT_EQ(ErrorCode(answer), "unsupported_encoding");
}

TEST_F(GatewayTest, PipelinedRequestsAreAnsweredInOrder) {
  TestConnection connection(Address());
  connection.Send(
      Post("/v1/chat/completions", ChatBody(R"("stream":true)"), "x-request-id: 1\r\n") +
      Post("/v1/chat/completions", "{", "x-request-id: 2\r\n") +
      "GET /v1/models HTTP/1.1\r\nx-request-id: 3\r\nConnection: close\r\n\r\n");
  std::string bytes = connection.ReadAll();
  const Answered first = TakeAnswer(bytes);
  EXPECT_EQ(first.Header("x-request-id"), "1");
  EXPECT_THAT(first.body, EndsWith("data: [DONE]\n\n"));
  const Answered second = TakeAnswer(bytes);
  EXPECT_EQ(second.Header("x-request-id"), "2");
  EXPECT_EQ(second.status, 400);
  const Answered third = TakeAnswer(bytes);
  EXPECT_EQ(third.Header("x-request-id"), "3");
  EXPECT_EQ(third.status, 200);
  EXPECT_EQ(bytes, "");
}

TEST_F(GatewayTest, Http10HasNoChunks) {
  const std::string body = ChatBody(R"("stream":true)");
  TestConnection connection(Address());
  connection.Send(absl::StrCat(
      "POST /v1/chat/completions HTTP/1.0\r\nContent-Length: ", body.size(), "\r\n\r\n", body));
  const std::string bytes = connection.ReadAll();
  EXPECT_THAT(bytes, StartsWith("HTTP/1.0 200 OK\r\n"));
  EXPECT_THAT(bytes, Not(HasSubstr("chunked")));
  EXPECT_THAT(bytes, HasSubstr("\r\n\r\ndata: {"));
  EXPECT_THAT(bytes, EndsWith("data: [DONE]\n\n"));
}

TEST_F(GatewayTest, ExpectContinue) {
  const std::string body = ChatBody();
  TestConnection connection(Address());
  connection.Send(absl::StrCat("POST /v1/chat/completions HTTP/1.1\r\nExpect: 100-continue\r\n",
                               "Connection: close\r\nContent-Length: ", body.size(), "\r\n\r\n"));
  EXPECT_EQ(connection.ReadUntil("\r\n\r\n"), "HTTP/1.1 100 Continue\r\n\r\n");
  connection.Send(body);
  std::string bytes = connection.ReadAll();
  EXPECT_EQ(TakeAnswer(bytes).status, 200);
}

TEST_F(GatewayTest, AnAnswerThatFailsBeforeItsFirstTokenHasAnHttpStatus) {
  for (const bool started : {false, true}) {
    Script script{.end = Error(Reason::kKvExhausted, "no pages")};
    if (started) script.events.push_back(StartedEvent(3));
    worker_.Follow(script);
    for (const char* stream : {R"("stream":true)", R"("stream":false)"}) {
      const Answered answer = AskChat(stream);
      EXPECT_EQ(answer.status, 429);
      EXPECT_EQ(ErrorCode(answer), "kv_exhausted");
      EXPECT_EQ(answer.Header("retry-after"), "1");
    }
  }
  EXPECT_EQ(Metric(R"(rejected_total{reason="KV_EXHAUSTED"})"), 4);
}

TEST_F(GatewayTest, AStreamThatBreaksEndsWithAnErrorAndNoDone) {
  Script script = Says({Ids("a").front()});
  script.events.pop_back();
  script.hang = true;
  script.end = Error(Reason::kExpertsUnavailable, "experts 3 are gone");
  worker_.Follow(script);
  TestConnection connection(Address());
  connection.Send(Post("/v1/chat/completions", ChatBody(R"("stream":true)")));
  std::string bytes = connection.ReadUntil(R"("content":"a"})");
  worker_.Release();
  bytes += connection.ReadAll();  // the gateway closes
  const Answered answer = TakeAnswer(bytes);
  EXPECT_EQ(answer.status, 200);
  EXPECT_TRUE(answer.complete);
  EXPECT_THAT(answer.body,
              EndsWith("\n\ndata: {\"error\":{\"message\":\"experts 3 are gone\",\"type\":"
                       "\"service_unavailable_error\",\"param\":null,\"code\":"
                       "\"experts_unavailable\"}}\n\n"));
  EXPECT_THAT(answer.body, Not(HasSubstr("[DONE]")));
  EXPECT_EQ(Metric(R"(requests_total{code="503",endpoint="chat_completions",model="tiny"})"), 1);
}

TEST_F(GatewayTest, AWholeAnswerThatBreaksIsNoSuccess) {
  Script script = Says(Ids("Hello"));
  script.events.pop_back();
  script.end = Error(Reason::kExpertsUnavailable, "experts 3 are gone");
  worker_.Follow(script);
  const Answered answer = AskChat();
  EXPECT_EQ(answer.status, 503);
  EXPECT_EQ(ErrorCode(answer), "experts_unavailable");
  EXPECT_THAT(answer.body, Not(HasSubstr("choices")));
}

TEST_F(GatewayTest, AWorkerThatForgetsTheEndIsAnError) {
  Script script = Says(Ids("a"));
  script.events.pop_back();
  worker_.Follow(script);
  const Answered answer = AskChat();
  EXPECT_EQ(answer.status, 500);
  EXPECT_EQ(ErrorCode(answer), "internal");
}

TEST_F(GatewayTest, StopStringEndsTheAnswerAndTheCall) {
  Script script = Says(Ids("one STOP two"));
  script.events.pop_back();
  script.hang = true;
  worker_.Follow(script);
  const Answered answer = AskChat(R"("stop":"STOP")");
  const json::value choice = json::parse(answer.body).at("choices").at(0);
  EXPECT_EQ(choice.at("message").at("content"), "one ");
  EXPECT_EQ(choice.at("finish_reason"), "stop");
  EXPECT_TRUE(worker_.WaitForCancelled(1));
}

TEST_F(GatewayTest, TimeoutOfARequest) {
  api_.request_timeout = std::chrono::seconds(0);
  const Answered answer = AskChat();
  EXPECT_EQ(answer.status, 504);
  EXPECT_EQ(ErrorCode(answer), "deadline_exceeded");
}

TEST_F(GatewayTest, WithoutAMeshThereIs503WithTheReason) {
  StartHttp();
  EXPECT_EQ(ErrorCode(AskChat()), "not_ready");
  mesh_->OnView(View());
  EXPECT_EQ(AskChat().status, 200);
  mesh_->OnView(View([](router::v1::View& view) {
    auto* range = view.add_missing_experts();
    range->set_begin(8);
    range->set_end(16);
  }));
  const Answered missing = AskChat();
  EXPECT_EQ(missing.status, 503);
  EXPECT_EQ(missing.Header("retry-after"), "1");
  EXPECT_EQ(ErrorCode(missing), "experts_unavailable");
  EXPECT_THAT(missing.body, HasSubstr("8-15"));
  mesh_->OnView(View([](router::v1::View& view) { view.clear_members(); }));
  EXPECT_EQ(ErrorCode(AskChat()), "no_attention_worker");
  EXPECT_EQ(Metric(R"(rejected_total{reason="NO_ATTENTION_WORKER"})"), 1);
  EXPECT_TRUE(process_->ready());
}

TEST_F(GatewayTest, AWorkerThatDiedIs503) {
  EXPECT_EQ(AskChat().status, 200);
  worker_.Die();
  const Answered answer = AskChat();
  EXPECT_EQ(answer.status, 503);
  EXPECT_THAT(ErrorCode(answer), testing::AnyOf("peer_lost", "no_attention_worker"));
}

TEST_F(GatewayTest, SilenceGetsCommentsAndThenTheDrainEndsIt) {
  HttpServer::Options options;
  options.limits.keep_alive = std::chrono::milliseconds(20);
  StartHttp(options);
  mesh_->OnView(View());
  worker_.Follow({.events = {StartedEvent(3)}, .hang = true});
  TestConnection streaming(http_->address());
  TestConnection idle(http_->address());
  streaming.Send(Post("/v1/chat/completions", ChatBody(R"("stream":true)")));
  std::string bytes = streaming.ReadUntil(": keep-alive\n\n\r\n");
  bytes += streaming.ReadUntil(": keep-alive\n\n\r\n");
  EXPECT_THAT(bytes, HasSubstr(R"("role":"assistant")"));
  EXPECT_EQ(Metric("inflight_requests"), 1);

  http_->Stop(std::chrono::milliseconds(0));
  EXPECT_EQ(idle.ReadAll(), "");
  bytes += streaming.ReadAll();
  const Answered answer = TakeAnswer(bytes);
  EXPECT_TRUE(answer.complete);
  EXPECT_THAT(answer.body, HasSubstr(R"(data: {"error":{)"));
  EXPECT_THAT(answer.body, HasSubstr(R"("code":"draining"})"));
  EXPECT_THAT(answer.body, Not(HasSubstr("[DONE]")));
  EXPECT_TRUE(worker_.WaitForCancelled(1));
  EXPECT_EQ(Metric("inflight_requests"), 0);
}

TEST_F(GatewayTest, OneConnectionTooMany) {
  HttpServer::Options options;
  options.connections_max = 1;
  StartHttp(options);
  TestConnection first(http_->address());
  first.Send("GET /v1/models HTTP/1.1\r\n\r\n");
  first.ReadUntil("}]}");
  TestConnection second(http_->address());
  std::string bytes = second.ReadAll();
  const Answered answer = TakeAnswer(bytes);
  EXPECT_EQ(answer.status, 503);
  EXPECT_EQ(ErrorCode(answer), "queue_full");
  EXPECT_THAT(answer.Header("x-request-id"), StartsWith("req-"));
  EXPECT_EQ(Metric(R"(rejected_total{reason="QUEUE_FULL"})"), 1);
}

TEST_F(GatewayTest, SlowClientsAreCutOff) {
  HttpServer::Options options;
  options.limits.header = std::chrono::milliseconds(50);
  options.limits.body = std::chrono::milliseconds(50);
  options.limits.idle = std::chrono::milliseconds(50);
  StartHttp(options);
  for (const char* part :
       {"", "GET /v1/models HT", "GET / HTTP/1.1\r\nContent-Length: 5\r\n\r\nab"}) {
    TestConnection connection(http_->address());
    connection.Send(part);
    EXPECT_EQ(connection.ReadAll(), "") << part;
  }
}

TEST_F(GatewayTest, ATakenAddressIsAnErrorThatSaysSo) {
  StartHttp();
  for (const std::string& listen :
       {http_->address(), std::string("127.0.0.1"), std::string("127.0.0.1:99999"),
        std::string(":80"), std::string("no.such.host.invalid:0")}) {
    const auto second = HttpServer::Start({.listen = listen}, api_);
    EXPECT_EQ(base::ReasonOf(second.status()), Reason::kInvalidArgument) << listen;
    EXPECT_THAT(std::string(second.status().message()), HasSubstr("--http"));
  }
}

TEST_F(GatewayTest, Counters) {
  AskChat();
  AskChat(R"("temperature":9)");
  EXPECT_EQ(Metric(R"(requests_total{code="200",endpoint="chat_completions",model="tiny"})"), 1);
  EXPECT_EQ(Metric(R"(requests_total{code="400",endpoint="chat_completions",model="tiny"})"), 1);
  EXPECT_EQ(Metric("prompt_tokens_total"), 9);
  EXPECT_EQ(Metric("cached_prompt_tokens_total"), 4);
  EXPECT_EQ(Metric("completion_tokens_total"), Ids("Hello").size());
  EXPECT_EQ(Metric("time_to_first_token_seconds_count"), 1);
  EXPECT_EQ(Metric("inter_token_latency_seconds_count"), Ids("Hello").size() - 1);
  EXPECT_EQ(Metric("request_duration_seconds_count"), 1);
}

}  // namespace
}  // namespace expertmesh::gateway

// The gateway's HTTP door on a real mesh: bad input gets its status and names the field, a hang-up
// stops the lane, seeds replay.
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <chrono>
#include <future>
#include <initializer_list>

#include "tests/support/http_client.h"
#include "tests/support/local_mesh.h"
#include "tests/support/tiny_model.h"

namespace expertmesh::test_support {
namespace {

class HttpTest : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    MeshSpec spec;
    spec.model = TinyModel();
    spec.slices = {"0-15", "16-31"};
    spec.gateway = true;
    mesh_ = new LocalMesh(spec);
    ASSERT_TRUE(mesh_->WaitReady());
  }
  static void TearDownTestSuite() {
    delete mesh_;
    mesh_ = nullptr;
  }

  HttpResponse Post(const std::string& body, const std::string& path = "/v1/chat/completions") {
    return HttpPost(mesh_->HttpAddress(), path, body);
  }
  // A chat request with some fields more.
  static std::string Chat(const std::string& fields) {
    return R"({"model":"tiny-v3","messages":[{"role":"user","content":"Hi"}],"max_tokens":4)" +
           (fields.empty() ? "" : "," + fields) + "}";
  }
  void ExpectBad(const std::string& body, const std::string& param, const std::string& code,
                 int status = 400, const std::string& path = "/v1/chat/completions") {
    const HttpResponse r = Post(body, path);
    EXPECT_EQ(r.status, status) << body << "\n" << r.body;
    const std::string quoted = param.empty() ? "null" : "\"" + param + "\"";
    EXPECT_NE(r.body.find("\"param\":" + quoted), std::string::npos) << body << "\n" << r.body;
    EXPECT_NE(r.body.find("\"code\":\"" + code + "\""), std::string::npos) << r.body;
    EXPECT_NE(r.header.find("x-request-id"), std::string::npos);
  }

  static LocalMesh* mesh_;
};
LocalMesh* HttpTest::mesh_ = nullptr;

TEST_F(HttpTest, EveryRequestHasItsLineInTheLogs) {
  const auto id_of = [](const HttpResponse& r) {
    const size_t at = r.header.find("x-request-id: ") + sizeof("x-request-id: ") - 1;
    return r.header.substr(at, r.header.find("\r\n", at) - at);
  };
  // The line is written after the answer, so it may come a moment later.
  const auto line_of = [&](const char* process, const std::string& id) {
    const auto deadline = std::chrono::steady_clock::now() + kPatience;
    std::string line;
    while (line.empty() && std::chrono::steady_clock::now() < deadline) {
      const std::string log = mesh_->process(process).Log();
      const size_t at = log.find("request id=" + id);
      if (at != std::string::npos) line = log.substr(at, log.find('\n', at) - at);
    }
    return line;
  };
  const auto expect = [](const std::string& line, std::initializer_list<const char*> parts) {
    for (const char* part : parts) EXPECT_NE(line.find(part), std::string::npos) << line;
  };
  const std::string answered = id_of(Post(Chat("\"seed\":1")));
  expect(line_of("gateway", answered), {" endpoint=chat_completions status=200 reason=",
                                        " worker=attention ", " completion_tokens=", " ms="});
  expect(line_of("attention", answered), {" status=OK reason=", " completion_tokens="});
  expect(line_of("gateway", id_of(Post("{"))), {" status=400 reason=invalid_json "});
  expect(line_of("gateway", id_of(Post("{}", "/nowhere"))),
         {" endpoint=other status=404 reason=unknown_url "});
}

TEST_F(HttpTest, MalformedBodies) {
  for (const std::string body : {"", "{", "[]", "nul", "{\"model\":\"tiny-v3\",}"}) {
    ExpectBad(body, "", "invalid_json");
  }
  ExpectBad("\xff\xfe", "", "invalid_utf8");
  ExpectBad(Chat("\"user\":\"\xc3\x28\""), "", "invalid_utf8");
  ExpectBad(std::string(100000, '['), "", "invalid_json");
}

TEST_F(HttpTest, OversizedBodyIs413) {
  const HttpResponse r = Post(Chat("\"user\":\"" + std::string(9 << 20, 'x') + "\""));
  EXPECT_EQ(r.status, 413);
  EXPECT_NE(r.body.find("request_too_large"), std::string::npos);
  EXPECT_EQ(Post(Chat("")).status, 200);
}

TEST_F(HttpTest, WrongTypesAndRangesNameTheField) {
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"\"temperature\":\"hot\"", "temperature"},
      {"\"temperature\":-0.1", "temperature"},
      {"\"temperature\":2.1", "temperature"},
      {"\"temperature\":1e999", "temperature"},
      {"\"top_p\":0", "top_p"},
      {"\"top_p\":1.5", "top_p"},
      {"\"top_k\":-1", "top_k"},
      {"\"seed\":1.5", "seed"},
      {"\"seed\":\"x\"", "seed"},
      {"\"stream\":1", "stream"},
      {"\"stop\":[1]", "stop[0]"},
      {"\"stop\":\"\"", "stop"},
      {"\"max_completion_tokens\":0", "max_completion_tokens"},
      {"\"max_completion_tokens\":1.5", "max_completion_tokens"},
      {"\"stream_options\":3", "stream_options"},
      {"\"stream_options\":{\"include_usage\":3}", "stream_options.include_usage"}};
  for (const auto& [field, param] : cases) {
    const HttpResponse r = Post(Chat(field));
    EXPECT_EQ(r.status, 400) << field << r.body;
    if (field != "\"temperature\":1e999") {  // not a finite number: JSON itself refuses it
      EXPECT_NE(r.body.find("\"param\":\"" + param + "\""), std::string::npos) << field << r.body;
    }
  }
  ExpectBad(R"({"model":"tiny-v3"})", "messages", "invalid_value");
  ExpectBad(R"({"model":"tiny-v3","messages":[]})", "messages", "invalid_value");
  ExpectBad(R"({"model":"tiny-v3","messages":[{"role":"king","content":"x"}]})", "messages[0].role",
            "invalid_value");
  ExpectBad(R"({"model":"tiny-v3","messages":[{"role":"user","content":7}]})",
            "messages[0].content", "invalid_value");
  ExpectBad(R"({"messages":[{"role":"user","content":"x"}]})", "model", "invalid_value");
}

TEST_F(HttpTest, WhatThisVersionDoesNotDoIsRefusedByName) {
  ExpectBad(Chat("\"tool_choice\":{\"type\":\"allowed_tools\"}"), "tool_choice",
            "unsupported_parameter");
  ExpectBad(Chat("\"response_format\":{\"type\":\"xml\"}"), "response_format.type",
            "invalid_value");
  ExpectBad(Chat("\"logit_bias\":{\"512\":1}"), "logit_bias", "invalid_argument");
  ExpectBad(Chat("\"frobnicate\":true"), "frobnicate", "unknown_parameter");
  EXPECT_EQ(Post(Chat("\"user\":\"me\",\"metadata\":{},\"n\":1,\"tools\":null")).status, 200);
}

TEST_F(HttpTest, UnknownModelAndPaths) {
  ExpectBad(R"({"model":"nope","messages":[{"role":"user","content":"x"}]})", "model",
            "model_not_found", 404);
  ExpectBad("{}", "", "unknown_url", 404, "/v1/embeddings");
  EXPECT_EQ(HttpGet(mesh_->HttpAddress(), "/v1/chat/completions").substr(9, 3), "405");
  EXPECT_EQ(HttpGet(mesh_->HttpAddress(), "/v1/models/tiny-v3").substr(9, 3), "200");
  EXPECT_EQ(HttpGet(mesh_->HttpAddress(), "/v1/models/nope").substr(9, 3), "404");
}

TEST_F(HttpTest, TooLongIsContextLengthExceeded) {
  std::string words;
  for (int i = 0; i < 600; ++i) words += "word" + std::to_string(i) + " ";
  ExpectBad(R"({"model":"tiny-v3","messages":[{"role":"user","content":")" + words + "\"}]}",
            "messages", "context_length_exceeded");
  ExpectBad(R"({"model":"tiny-v3","prompt":"a","max_tokens":512})", "prompt",
            "context_length_exceeded", 400, "/v1/completions");
}

TEST_F(HttpTest, MalformedHttpIsAnsweredAndTheServerLives) {
  const HttpResponse r = HttpExchange(mesh_->HttpAddress(), "BLAH\r\n\r\n");
  EXPECT_EQ(r.status, 400);
  EXPECT_EQ(HttpExchange(mesh_->HttpAddress(),
                         "GET / HTTP/1.1\r\nX: " + std::string(100000, 'a') + "\r\n\r\n")
                .status,
            431);
  EXPECT_EQ(Post(Chat("")).status, 200);
}

std::string ContentOf(const std::string& body) {
  const size_t at = body.find("\"content\":");
  return body.substr(at, body.find("\"refusal\"", at) - at);
}

TEST_F(HttpTest, ASeedReplays) {
  const std::string body = Chat("\"seed\":7,\"temperature\":1.2,\"max_completion_tokens\":40");
  const HttpResponse first = Post(body);
  EXPECT_EQ(first.status, 200);
  EXPECT_EQ(ContentOf(first.body), ContentOf(Post(body).body));
  EXPECT_NE(
      ContentOf(first.body),
      ContentOf(Post(Chat("\"seed\":8,\"temperature\":1.2,\"max_completion_tokens\":40")).body));
}

TEST_F(HttpTest, AHangUpStopsTheLane) {
  const int fd = HttpConnect(mesh_->HttpAddress());
  ASSERT_GE(fd, 0);
  const std::string body =
      R"({"model":"tiny-v3","stream":true,"messages":[{"role":"user","content":"Hi"}]})";
  const std::string request = "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: " +
                              std::to_string(body.size()) + "\r\n\r\n" + body;
  ASSERT_EQ(send(fd, request.data(), request.size(), MSG_NOSIGNAL),
            static_cast<ssize_t>(request.size()));
  char byte = 0;
  ASSERT_EQ(read(fd, &byte, 1), 1);  // the answer has begun
  close(fd);
  const auto deadline = std::chrono::steady_clock::now() + kPatience;
  std::string page;
  do {
    page = HttpGet(mesh_->AdminAddress("attention"), "/statusz");
  } while (page.find("\"running\":0") == std::string::npos &&
           std::chrono::steady_clock::now() < deadline);
  EXPECT_NE(page.find("\"running\":0"), std::string::npos) << page;
  EXPECT_NE(page.find("\"pages_used\":0"), std::string::npos) << page;
}

// Two pages: sequences of 128 tokens, though the model's context is 512. Waiting would not help, so
// this is no 429.
TEST(SmallWorkerTest, WhatCanNeverFitIs400AtOnce) {
  MeshSpec spec;
  spec.model = TinyModel();
  spec.slices = {"0-31"};
  spec.attention_flags = {"--kv-pages", "2"};
  spec.gateway = true;
  LocalMesh mesh(spec);
  ASSERT_TRUE(mesh.WaitReady());
  const auto complete = [&](const std::string& fields) {
    return HttpPost(mesh.HttpAddress(), "/v1/completions",
                    R"({"model":"tiny-v3","prompt":"Hi","seed":1)" + fields + "}");
  };
  const HttpResponse refused = complete(",\"max_tokens\":200");
  EXPECT_EQ(refused.status, 400) << refused.body;
  EXPECT_NE(refused.body.find("\"code\":\"context_length_exceeded\""), std::string::npos);
  EXPECT_EQ(refused.header.find("Retry-After"), std::string::npos);
  EXPECT_EQ(complete(",\"max_tokens\":100").status, 200);
  const HttpResponse chat =  // without a limit: to the end of what fits
      HttpPost(mesh.HttpAddress(), "/v1/chat/completions",
               R"({"model":"tiny-v3","messages":[{"role":"user","content":"Hi"}]})");
  EXPECT_EQ(chat.status, 200) << chat.body;
}

// One sequence fits, one may wait. Of many at once the others are refused, with the time to try
// again; nothing is lost, and nothing stays behind.
TEST(SmallWorkerTest, MoreThanFitWaitAndMoreThanMayWaitAre429) {
  MeshSpec spec;
  spec.model = TinyModel();
  spec.slices = {"0-31"};
  spec.attention_flags = {"--kv-pages", "2", "--queue", "1"};
  spec.gateway = true;
  LocalMesh mesh(spec);
  ASSERT_TRUE(mesh.WaitReady());
  const auto complete = [&] {
    return HttpPost(mesh.HttpAddress(), "/v1/completions",
                    R"({"model":"tiny-v3","prompt":"Hi","seed":1,"max_tokens":100})");
  };
  std::vector<std::future<HttpResponse>> answers;
  for (int i = 0; i < 16; ++i) answers.push_back(std::async(std::launch::async, complete));
  int answered = 0;
  int refused = 0;
  for (auto& answer : answers) {
    const HttpResponse r = answer.get();
    answered += r.status == 200 ? 1 : 0;
    if (r.status != 429) continue;
    ++refused;
    EXPECT_NE(r.header.find("Retry-After: 1"), std::string::npos) << r.header;
    EXPECT_NE(r.body.find("\"code\":\"queue_full\""), std::string::npos) << r.body;
  }
  EXPECT_GE(answered, 2);
  EXPECT_GE(refused, 1);
  EXPECT_EQ(answered + refused, 16);
  EXPECT_EQ(complete().status, 200);
}

}  // namespace
}  // namespace expertmesh::test_support

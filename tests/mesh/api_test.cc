// The API over a whole mesh: choices and their replay, logprobs, biases, calls of the prefix cache,
// prefixes and gaps.
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <boost/json.hpp>
#include <set>

#include "expertmesh/inference/v1/inference.grpc.pb.h"
#include "services/rpc/channel.h"
#include "services/rpc/identity.h"
#include "services/rpc/status.h"
#include "tests/support/http_client.h"
#include "tests/support/local_mesh.h"
#include "tests/support/tiny_model.h"

namespace expertmesh::test_support {
namespace {

namespace json = boost::json;

class ApiTest : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    MeshSpec spec;
    spec.model = TinyModel("tiny");
    spec.slices = {"0-15", "16-31"};
    spec.engram = true;
    spec.gateway = true;
    mesh_ = std::make_unique<LocalMesh>(spec);
    ready_ = mesh_->WaitReady();
  }
  static void TearDownTestSuite() { mesh_.reset(); }
  void SetUp() override { ASSERT_TRUE(ready_); }

  static json::value Post(const std::string& path, const std::string& body) {
    const HttpResponse answer = HttpPost(mesh_->HttpAddress(), path, body);
    EXPECT_EQ(answer.status, 200) << answer.body;
    return answer.status == 200 ? json::parse(answer.body) : json::value();
  }
  static json::value Complete(const std::string& fields) {
    return Post("/v1/completions", R"({"model":"tiny",)" + fields + "}");
  }
  static std::string Text(const json::value& answer, size_t choice = 0) {
    return answer.at("choices").at(choice).at("text").as_string().c_str();
  }

  // The text of one choice, asked for alone through the gateway's gRPC door.
  static std::string Replay(const std::vector<uint32_t>& prompt, uint64_t seed, uint32_t choice,
                            uint32_t tokens) {
    const auto channel = rpc::MakeChannel(mesh_->Address("gateway"));
    const auto stub = inference::v1::InferenceService::NewStub(channel);
    grpc::ClientContext context;
    rpc::PrepareClient(context, {}, kPatience);
    inference::v1::GenerateRequest request;
    request.mutable_model()->set_model("tiny");
    request.add_segments()->mutable_tokens()->mutable_ids()->Add(prompt.begin(), prompt.end());
    request.mutable_sampling()->set_temperature(1.0f);
    request.mutable_sampling()->set_seed(seed);
    request.set_choice(choice);
    request.set_max_tokens(tokens);
    const auto reader = stub->Generate(&context, request);
    inference::v1::GenerateResponse event;
    std::string text;
    while (reader->Read(&event)) text += event.token().text();
    const grpc::Status status = reader->Finish();
    EXPECT_TRUE(status.ok()) << status.error_message();
    return text;
  }

  static std::unique_ptr<LocalMesh> mesh_;
  static bool ready_;
};
std::unique_ptr<LocalMesh> ApiTest::mesh_;
bool ApiTest::ready_ = false;

// Without the signs for a character that the last token left open: only HTTP shows them.
std::string Whole(std::string text) {
  while (text.ends_with("\uFFFD")) text.resize(text.size() - 3);
  return text;
}

TEST_F(ApiTest, FourChoicesDifferAndEachEqualsItsOwnReplay) {
  std::string ids;
  std::vector<uint32_t> prompt;
  for (uint32_t i = 0; i < 80; ++i) {
    prompt.push_back(30 + i % 200);
    ids += (i == 0 ? "" : ",") + std::to_string(prompt.back());
  }
  const json::value answer = Complete(R"("prompt":[)" + ids +
                                      R"(],"n":4,"seed":7,"temperature":1,)"
                                      R"("max_tokens":24)");
  ASSERT_EQ(answer.at("choices").as_array().size(), 4u);
  std::set<std::string> texts;
  for (uint32_t choice = 0; choice < 4; ++choice) {
    EXPECT_EQ(answer.at("choices").at(choice).at("index").as_int64(), choice);
    EXPECT_EQ(Whole(Text(answer, choice)), Whole(Replay(prompt, 7, choice, 24))) << choice;
    texts.insert(Text(answer, choice));
  }
  EXPECT_EQ(texts.size(), 4u);
  EXPECT_EQ(answer.at("usage").at("prompt_tokens").as_int64(), 80);
}

TEST_F(ApiTest, LogprobsAreOfTheModelAndTheChosenIsTheLikeliestWhenGreedy) {
  const json::value answer =
      Complete(R"("prompt":"Explain MoE","temperature":0,"max_tokens":8,"logprobs":3)");
  const json::value& logprobs = answer.at("choices").at(0).at("logprobs");
  const size_t count = logprobs.at("tokens").as_array().size();
  ASSERT_GT(count, 0u);
  for (size_t i = 0; i < count; ++i) {
    const double chosen = logprobs.at("token_logprobs").at(i).as_double();
    EXPECT_LE(chosen, 0);
    double best = -1e9;
    for (const auto& [token, logprob] : logprobs.at("top_logprobs").at(i).as_object()) {
      best = std::max(best, logprob.as_double());
    }
    EXPECT_EQ(chosen, best) << i;
  }
}

TEST_F(ApiTest, BiasesAndPenaltiesChangeTheChoice) {
  const std::string ask = R"("prompt":"Explain MoE","temperature":0,"max_tokens":6,"logprobs":0)";
  const json::value plain = Complete(ask);
  const json::value forced = Complete(ask + R"(,"logit_bias":{"97":100})");
  for (const json::value& token :
       forced.at("choices").at(0).at("logprobs").at("tokens").as_array()) {
    EXPECT_EQ(token, forced.at("choices").at(0).at("logprobs").at("tokens").at(0));
  }
  EXPECT_NE(Text(forced), Text(plain));
  // What is forced six times in a row without a penalty is not with one.
  const json::value penalised =
      Complete(ask + R"(,"logit_bias":{"97":3},"frequency_penalty":2,"presence_penalty":2)");
  EXPECT_NE(Text(penalised), Text(forced));
}

TEST_F(ApiTest, TheSecondOfTwoEqualPromptsIsMostlyCached) {
  std::string words = "cached ";
  for (int i = 0; i < 80; ++i) words += "word ";
  const std::string ask = R"("prompt":")" + words + R"(","temperature":0,"max_tokens":8)";
  const json::value first = Complete(ask);
  const json::value second = Complete(ask);
  EXPECT_EQ(Text(first), Text(second));
  EXPECT_EQ(first.at("usage").at("prompt_cache_hit_tokens").as_int64(), 0);
  const int64_t prompt = second.at("usage").at("prompt_tokens").as_int64();
  const int64_t hit = second.at("usage").at("prompt_cache_hit_tokens").as_int64();
  EXPECT_EQ(hit, (prompt - 1) / 64 * 64);
  EXPECT_GT(hit, 0);
  EXPECT_EQ(second.at("usage").at("prompt_cache_miss_tokens").as_int64(), prompt - hit);
  EXPECT_EQ(second.at("usage").at("prompt_tokens_details").at("cached_tokens").as_int64(), hit);
}

TEST_F(ApiTest, APrefixIsContinuedAndAGapFilled) {
  const std::string head = R"({"model":"tiny","temperature":0,"max_tokens":4,"messages":[)"
                           R"({"role":"user","content":"Hi"},)";
  const json::value continued = Post(
      "/v1/chat/completions", head + R"({"role":"assistant","content":"Well,","prefix":true}]})");
  const json::value closed =
      Post("/v1/chat/completions", head + R"({"role":"assistant","content":"Well,"}]})");
  EXPECT_NE(continued.at("usage").at("prompt_tokens"), closed.at("usage").at("prompt_tokens"));
  const json::value gap = Complete(R"("prompt":"a","suffix":"b","max_tokens":2)");
  EXPECT_EQ(gap.at("usage").at("prompt_tokens").as_int64(), 6);  // BOS, three marks, two letters
}

TEST_F(ApiTest, ToolsReachThePrompt) {
  const std::string ask = R"({"model":"tiny","temperature":0,"max_tokens":2,"messages":[)"
                          R"({"role":"user","content":"Hi"}])";
  const std::string tools = R"(,"tools":[{"type":"function","function":{"name":"weather"}}])";
  const auto prompt_tokens = [&](const std::string& fields) {
    return Post("/v1/chat/completions", ask + fields + "}")
        .at("usage")
        .at("prompt_tokens")
        .as_int64();
  };
  EXPECT_GT(prompt_tokens(tools), prompt_tokens(""));
  EXPECT_EQ(prompt_tokens(tools + R"(,"tool_choice":"none")"), prompt_tokens(""));
}

}  // namespace
}  // namespace expertmesh::test_support

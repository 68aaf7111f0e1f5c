// Answers that are held to a form, over a whole mesh whose model has random weights: whatever it
// would rather say, the answer parses and fits.
#include <gtest/gtest.h>

#include <boost/json.hpp>

#include "tests/support/http_client.h"
#include "tests/support/local_mesh.h"
#include "tests/support/tiny_model.h"

namespace expertmesh::test_support {
namespace {

namespace json = boost::json;

constexpr const char* kMessages = R"("messages":[{"role":"user","content":"Say something."}])";
constexpr const char* kTools =
    R"("tools":[{"type":"function","function":{"name":"get_weather","strict":true,"parameters":)"
    R"({"type":"object","properties":{"city":{"type":"string","maxLength":12},)"
    R"("days":{"type":"integer","minimum":1,"maximum":9}},"required":["city","days"],)"
    R"("additionalProperties":false}}},)"
    R"({"type":"function","function":{"name":"stop"}}])";

class ConstraintTest : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    MeshSpec spec;
    spec.model = TinyModel("tiny");
    spec.slices = {"0-31"};
    spec.engram = true;
    spec.gateway = true;
    mesh_ = std::make_unique<LocalMesh>(spec);
    ready_ = mesh_->WaitReady();
  }
  static void TearDownTestSuite() { mesh_.reset(); }
  void SetUp() override { ASSERT_TRUE(ready_); }

  static HttpResponse Ask(const std::string& path, const std::string& fields) {
    return HttpPost(mesh_->HttpAddress(), path, R"({"model":"tiny",)" + fields + "}");
  }
  static json::value Chat(const std::string& fields) {
    const HttpResponse answer =
        Ask("/v1/chat/completions", std::string(kMessages) + R"(,"max_tokens":120,)" + fields);
    EXPECT_EQ(answer.status, 200) << answer.body;
    return answer.status == 200 ? json::parse(answer.body) : json::value();
  }
  static json::value ContentOf(const json::value& answer) {
    const std::string text(answer.at("choices").at(0).at("message").at("content").as_string());
    boost::system::error_code error;
    const json::value value = json::parse(text, error);
    EXPECT_FALSE(error) << text;
    return value;
  }

  static std::unique_ptr<LocalMesh> mesh_;
  static bool ready_;
};
std::unique_ptr<LocalMesh> ConstraintTest::mesh_;
bool ConstraintTest::ready_ = false;

TEST_F(ConstraintTest, SchemasAreSatisfiedForEverySeed) {
  for (int seed = 0; seed < 20; ++seed) {
    const json::value value = ContentOf(Chat(
        R"("response_format":{"type":"json_schema","json_schema":{"name":"n","schema":{)"
        R"("type":"object","properties":{"name":{"type":"string","minLength":1,"maxLength":8},)"
        R"("tags":{"type":"array","items":{"enum":["a","b"]},"minItems":1,"maxItems":3}},)"
        R"("required":["name","tags"],"additionalProperties":false}}},"temperature":1.5,"seed":)" +
        std::to_string(seed)));
    EXPECT_FALSE(value.at("name").as_string().empty());
    EXPECT_LE(value.at("tags").as_array().size(), 3u);
  }
}

TEST_F(ConstraintTest, ObjectsOfAnyKindEndWithinTheLimit) {
  for (int seed = 0; seed < 5; ++seed) {
    const json::value answer =
        Chat(R"("response_format":{"type":"json_object"},"seed":)" + std::to_string(seed));
    EXPECT_TRUE(ContentOf(answer).is_object());
    EXPECT_EQ(answer.at("choices").at(0).at("finish_reason"), json::value("stop"));
  }
}

TEST_F(ConstraintTest, ForcedCallsNameAToolAndFitItsSchema) {
  for (int seed = 0; seed < 5; ++seed) {
    const json::value answer = Chat(std::string(kTools) +
                                    R"(,"parallel_tool_calls":false,"tool_choice":{"type":)"
                                    R"("function","function":{"name":"get_weather"}},"seed":)" +
                                    std::to_string(seed));
    const json::value& choice = answer.at("choices").at(0);
    EXPECT_EQ(choice.at("finish_reason"), json::value("tool_calls")) << json::serialize(answer);
    const json::value& function = choice.at("message").at("tool_calls").at(0).at("function");
    EXPECT_EQ(function.at("name"), json::value("get_weather"));
    const json::value arguments = json::parse(std::string(function.at("arguments").as_string()));
    EXPECT_GE(arguments.at("days").as_int64(), 1);
    EXPECT_LE(arguments.at("days").as_int64(), 9);
  }
  const json::value answer = Chat(std::string(kTools) + R"(,"tool_choice":"required","seed":3)");
  const json::value& calls = answer.at("choices").at(0).at("message").at("tool_calls");
  EXPECT_FALSE(calls.as_array().empty());
}

TEST_F(ConstraintTest, BehindReasoningAndInTheOtherDialects) {
  const json::value thought =
      Chat(R"("thinking":{"type":"enabled"},"response_format":{"type":"json_object"},"seed":1)");
  EXPECT_TRUE(ContentOf(thought).is_object());
  const HttpResponse responses =
      Ask("/v1/responses",
          R"("input":"x","max_output_tokens":60,"text":{"format":{"type":"json_schema",)"
          R"("name":"n","schema":{"type":"array","items":{"type":"boolean"}}}})");
  ASSERT_EQ(responses.status, 200) << responses.body;
  const json::value output = json::parse(responses.body).at("output");
  EXPECT_TRUE(
      json::parse(std::string(output.at(0).at("content").at(0).at("text").as_string())).is_array());
  const HttpResponse call =
      Ask("/anthropic/v1/messages",
          std::string(kMessages) + R"(,"max_tokens":60,"tools":[{"name":"f","input_schema":)" +
              R"({"type":"object","properties":{"b":{"type":"boolean"}},"required":["b"]}}],)" +
              R"("tool_choice":{"type":"tool","name":"f"})");
  ASSERT_EQ(call.status, 200) << call.body;
  const json::value block = json::parse(call.body).at("content").at(0);
  EXPECT_EQ(block.at("type"), json::value("tool_use"));
  EXPECT_TRUE(block.at("input").at("b").is_bool());
}

TEST_F(ConstraintTest, WhatCannotBeConstrainedIs400NamingTheKeyword) {
  const HttpResponse answer =
      Ask("/v1/chat/completions",
          std::string(kMessages) + R"(,"response_format":{"type":"json_schema","json_schema":{)" +
              R"("name":"n","schema":{"type":"array","uniqueItems":true}}})");
  EXPECT_EQ(answer.status, 400);
  const json::value error = json::parse(answer.body).at("error");
  EXPECT_EQ(error.at("param"), json::value("response_format.json_schema.schema"));
  EXPECT_NE(answer.body.find("uniqueItems"), std::string::npos) << answer.body;
  EXPECT_EQ(error.at("code"), json::value("schema_unsupported"));
}

}  // namespace
}  // namespace expertmesh::test_support

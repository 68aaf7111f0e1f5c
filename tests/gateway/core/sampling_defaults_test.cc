#include "gateway/core/sampling_defaults.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <tuple>
#include <variant>

#include "services/base/status.h"

namespace expertmesh::gateway {
namespace {

using testing::HasSubstr;

TEST(SamplingDefaults, AreTakenFromTheFile) {
  const auto defaults = ParseSamplingDefaults(
      R"({"temperature":0.6,"top_p":0.95,"top_k":50,"min_p":0.1,"repetition_penalty":1.1,
          "do_sample":true,"eos_token_id":[1],"transformers_version":"4.1"})");
  ASSERT_TRUE(defaults.ok()) << defaults.status();
  EXPECT_EQ(*defaults, (SamplingDefaults{.temperature = 0.6f,
                                         .top_p = 0.95f,
                                         .top_k = 50,
                                         .min_p = 0.1f,
                                         .repetition_penalty = 1.1f}));
}

TEST(SamplingDefaults, WhatIsNotSaidStaysAsItIs) {
  for (const char* text : {"{}", R"({"temperature":null})", R"({"max_length":20})"}) {
    const auto defaults = ParseSamplingDefaults(text);
    ASSERT_TRUE(defaults.ok()) << text;
    EXPECT_EQ(*defaults, SamplingDefaults()) << text;
  }
}

TEST(SamplingDefaults, WithoutSamplingTheAnswerIsGreedy) {
  const auto defaults = ParseSamplingDefaults(R"({"do_sample":false,"temperature":0.7})");
  ASSERT_TRUE(defaults.ok());
  EXPECT_EQ(defaults->temperature, 0.0f);
}

TEST(SamplingDefaults, WhatIsOutOfRangeIsNamed) {
  for (const auto& [text, named] :
       {std::tuple(R"({"temperature":3})", "temperature"), std::tuple(R"({"top_p":0})", "top_p"),
        std::tuple(R"({"top_k":-1})", "top_k"), std::tuple(R"({"do_sample":"yes"})", "do_sample"),
        std::tuple("[1]", "JSON"), std::tuple("{", "JSON")}) {
    const auto defaults = ParseSamplingDefaults(text);
    EXPECT_EQ(base::ReasonOf(defaults.status()), base::Reason::kInvalidArgument) << text;
    EXPECT_THAT(std::string(defaults.status().message()), HasSubstr(named)) << text;
  }
}

TEST(SamplingDefaults, ARequestThatSaysOtherwiseWins) {
  const SamplingDefaults defaults{.temperature = 0, .top_p = 0.5f, .top_k = 7};
  const auto parsed = ParseChatRequest(
      R"({"model":"m","messages":[{"role":"user","content":"hi"}],"temperature":0.8})", defaults);
  const auto& request = std::get<ApiRequest>(parsed);
  EXPECT_EQ(request.temperature, 0.8f);
  EXPECT_EQ(request.top_p, 0.5f);
  EXPECT_EQ(request.top_k, 7u);
}

}  // namespace
}  // namespace expertmesh::gateway

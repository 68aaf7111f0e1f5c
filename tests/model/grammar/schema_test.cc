// Schemas: what a random model says under each is an instance; what cannot be constrained is
// refused by keyword. An independent validator checks many more (tests/conformance).
#include "model/grammar/schema.h"

#include <gtest/gtest.h>

#include <boost/json.hpp>

#include "model/tokenizer/utf8.h"
#include "services/base/status.h"
#include "tests/model/grammar/random_answer.h"

namespace expertmesh::model {
namespace {

namespace json = boost::json;

// Every answer of 40 seeds, with budgets from the shortest possible to plenty.
std::vector<std::string> Answers(const std::string& schema) {
  const auto grammar = CompileSchema(schema);
  EXPECT_TRUE(grammar.ok()) << schema << "\n" << grammar.status();
  if (!grammar.ok()) return {};
  std::vector<std::string> answers;
  for (uint64_t seed = 0; seed < 40; ++seed) {
    Matcher matcher(*grammar, test_support::TestTrie());
    const uint64_t budget = matcher.shortest_rest() + 1 + seed * seed;
    const auto answer = test_support::AnswerAtRandom(matcher, budget, seed, seed % 2 == 0);
    EXPECT_TRUE(answer.complete) << schema << "\nbudget " << budget << ": " << answer.text;
    answers.push_back(answer.text);
    Matcher replayed(*grammar, test_support::TestTrie());
    for (const uint32_t id : answer.tokens) EXPECT_TRUE(replayed.Accept(id));
    EXPECT_TRUE(replayed.complete());
    EXPECT_EQ(replayed.shortest_rest(), matcher.shortest_rest());
  }
  return answers;
}

void ExpectAll(const std::string& schema, bool (*fits)(const json::value&)) {
  for (const std::string& text : Answers(schema)) {
    boost::system::error_code error;
    json::parse_options options;
    options.max_depth = 200;
    const json::value value = json::parse(text, error, {}, options);
    EXPECT_FALSE(error) << schema << "\n" << text;
    if (error) continue;
    EXPECT_TRUE(fits(value)) << schema << "\n" << text;
  }
}

TEST(Schema, Scalars) {
  ExpectAll(R"({"type":"boolean"})", [](const json::value& v) { return v.is_bool(); });
  ExpectAll(R"({"type":"null"})", [](const json::value& v) { return v.is_null(); });
  ExpectAll(R"({"type":"integer"})", [](const json::value& v) { return v.is_int64(); });
  ExpectAll(R"({"type":"number"})", [](const json::value& v) { return v.is_number(); });
  ExpectAll(R"({"type":["string","null"],"maxLength":5})",
            [](const json::value& v) { return v.is_null() || v.is_string(); });
  ExpectAll(R"({"enum":["a",1,null,{"b":[true]}]})", [](const json::value& v) {
    return v == json::value("a") || v == json::value(1) || v.is_null() || v.is_object();
  });
  ExpectAll(R"({"const":"\u0001\"\\é"})",
            [](const json::value& v) { return v == json::value("\x01\"\\é"); });
}

TEST(Schema, StringLengthsCountCodePoints) {
  ExpectAll(R"({"type":"string","minLength":3,"maxLength":6})", [](const json::value& v) {
    const std::string_view text(v.as_string().data(), v.as_string().size());
    size_t count = 0;
    for (size_t at = 0; at < text.size(); ++count) at += DecodeUtf8(text.substr(at)).length;
    return count >= 3 && count <= 6;
  });
}

TEST(Schema, NumbersWithinBounds) {
  ExpectAll(R"({"type":"integer","minimum":-7,"maximum":120})", [](const json::value& v) {
    return v.is_int64() && v.as_int64() >= -7 && v.as_int64() <= 120;
  });
  ExpectAll(R"({"type":"integer","exclusiveMinimum":999,"exclusiveMaximum":1001})",
            [](const json::value& v) { return v == json::value(1000); });
  ExpectAll(R"({"type":"integer","minimum":50,"multipleOf":35,"maximum":400})",
            [](const json::value& v) {
              return v.as_int64() >= 50 && v.as_int64() <= 400 && v.as_int64() % 35 == 0;
            });
  ExpectAll(R"({"type":"number","minimum":0.1,"exclusiveMaximum":0.35})", [](const json::value& v) {
    const double n = v.to_number<double>();
    return n >= 0.1 && n < 0.35;
  });
  ExpectAll(R"({"type":"number","exclusiveMinimum":-2.5,"maximum":-2})", [](const json::value& v) {
    const double n = v.to_number<double>();
    return n > -2.5 && n <= -2;
  });
}

TEST(Schema, ObjectsInOrderWithoutTwins) {
  const std::string schema = R"({"type":"object","properties":{"a":{"type":"integer"},
      "b":{"type":"string"},"c":{"type":"boolean"}},"required":["b"],
      "additionalProperties":{"type":"null"}})";
  for (const std::string& text : Answers(schema)) {
    json::object object = json::parse(text).as_object();
    EXPECT_TRUE(object["b"].is_string()) << text;
    size_t keys = 0;  // as written: twins would be more than the object has
    for (const auto& [key, value] : object) {
      if (key == "a" || key == "b" || key == "c") continue;
      ++keys;
      EXPECT_TRUE(value.is_null()) << text;
    }
    size_t nulls = 0;
    for (size_t at = 0; (at = text.find("null", at)) != std::string::npos; ++at) ++nulls;
    EXPECT_GE(nulls, keys) << text;
  }
  ExpectAll(R"({"type":"object","properties":{"":{"type":"null"}},"required":["","x"]})",
            [](const json::value& v) { return v.as_object().size() == 2; });
}

TEST(Schema, ArraysAndTuples) {
  ExpectAll(
      R"({"type":"array","items":{"type":"boolean"},"minItems":2,"maxItems":4})",
      [](const json::value& v) { return v.as_array().size() >= 2 && v.as_array().size() <= 4; });
  ExpectAll(R"({"type":"array","prefixItems":[{"type":"null"},{"type":"boolean"}],"items":false,
                "minItems":2})",
            [](const json::value& v) {
              return v.as_array().size() == 2 && v.as_array()[0].is_null() &&
                     v.as_array()[1].is_bool();
            });
}

TEST(Schema, PatternsAndFormats) {
  ExpectAll(R"({"type":"string","pattern":"^[A-Z]{2}-\\d{3}$"})", [](const json::value& v) {
    const json::string& s = v.as_string();
    return s.size() == 6 && s[0] >= 'A' && s[0] <= 'Z' && s[2] == '-' && s[5] >= '0' && s[5] <= '9';
  });
  ExpectAll(R"({"type":"string","pattern":"a|b$","maxLength":4})", [](const json::value& v) {
    const std::string text(v.as_string().data(), v.as_string().size());
    return text.find('a') != std::string::npos || text.ends_with('b');
  });
  ExpectAll(R"({"type":"string","pattern":"^[\"\\\\]+$","minLength":2})", [](const json::value& v) {
    return v.as_string().size() >= 2 &&
           v.as_string().find_first_not_of("\"\\") == json::string::npos;
  });
  ExpectAll(R"({"type":"string","format":"uuid"})",
            [](const json::value& v) { return v.as_string().size() == 36; });
  for (const char* format :
       {"date", "time", "date-time", "duration", "email", "hostname", "ipv4", "ipv6"}) {
    ExpectAll(std::string(R"({"type":"string","format":")") + format + "\"}",
              [](const json::value& v) { return v.is_string(); });
  }
}

TEST(Schema, RecursionEnds) {
  ExpectAll(R"({"$ref":"#/$defs/tree","$defs":{"tree":{"type":"object","properties":{
                "left":{"$ref":"#/$defs/tree"},"right":{"anyOf":[{"type":"null"},
                {"$ref":"#/$defs/tree"}]}},"required":["right"]}}})",
            [](const json::value& v) { return v.as_object().contains("right"); });
  ExpectAll(R"({})", [](const json::value&) { return true; });
  ExpectAll(R"({"type":"object"})", [](const json::value& v) { return v.is_object(); });
}

TEST(Schema, MergesWhatMustHoldTogether) {
  ExpectAll(R"({"type":"object","properties":{"k":{"type":"integer","minimum":3}},
                "allOf":[{"properties":{"k":{"maximum":5}},"required":["k"]}]})",
            [](const json::value& v) {
              const int64_t k = v.at("k").as_int64();
              return k >= 3 && k <= 5;
            });
  ExpectAll(R"({"type":"object","properties":{"a":{"type":"null"},"b":{"type":"null"}},
                "additionalProperties":false,"anyOf":[{"required":["a"]},{"required":["b"]}]})",
            [](const json::value& v) { return !v.as_object().empty(); });
  ExpectAll(R"({"oneOf":[{"type":"object","properties":{"t":{"const":"x"}},"required":["t"]},
                {"type":"object","properties":{"t":{"const":"y"},"n":{"type":"integer"}},
                 "required":["t","n"]}]})",
            [](const json::value& v) {
              return v.at("t") == json::value(v.as_object().contains("n") ? "y" : "x");
            });
}

struct Bad {
  const char* schema;
  const char* named;
};

TEST(Schema, WhatCannotBeConstrainedIsNamed) {
  constexpr Bad kBad[] = {
      {R"({"type":"object","properties":{"a":{"not":{}}}})", "not at \"#/properties/a\""},
      {R"({"type":"array","uniqueItems":true})", "uniqueItems"},
      {R"({"type":"object","patternProperties":{"^a":{}}})", "patternProperties"},
      {R"({"if":{},"then":{}})", "if"},
      {R"({"type":"string","format":"regex"})", "format"},
      {R"j({"type":"string","pattern":"(?=a)"})j", "look-around"},
      {R"j({"type":"string","pattern":"(a)\\1"})j", "pattern"},
      {R"({"type":"string","pattern":"a{5000}"})", "pattern"},
      {R"({"type":"string","pattern":"a**"})", "pattern"},
      {R"({"type":"string","pattern":"(a"})", "pattern"},
      {R"({"type":"number","multipleOf":0.1})", "multipleOf"},
      {R"({"type":"blob"})", "type"},
      {R"({"$ref":"other.json"})", "$ref"},
      {R"({"$ref":"#/$defs/none"})", "$ref"},
      {R"({"$ref":"#"})", "refers to itself"},
      {R"({"anyOf":[{"$ref":"#"},{"$ref":"#"}]})", "refers to itself"},
      {R"({"type":"object","properties":{"a":{"$ref":"#"}},"required":["a"]})", "no value"},
      {R"({"type":"integer","minimum":5,"maximum":4})", "no value"},
      {R"({"type":"string","minLength":5,"maxLength":4})", "no value"},
      {R"({"enum":[]})", "no value"},
      {R"(false)", "no value"},
      {R"({"oneOf":[{"type":"string"},{"type":"string","maxLength":3}]})", "oneOf"},
      {R"({"enum":["a"],"minLength":3})", "minLength"},
      {R"({"minProperties":2})", "minProperties"},
      {R"({"type":"array","items":[{}]})", "items"},
      {R"([1])", "schema"},
  };
  for (const Bad& bad : kBad) {
    const auto grammar = CompileSchema(bad.schema);
    ASSERT_FALSE(grammar.ok()) << bad.schema;
    EXPECT_EQ(base::ReasonOf(grammar.status()), base::Reason::kSchemaUnsupported) << bad.schema;
    EXPECT_NE(grammar.status().message().find(bad.named), std::string_view::npos)
        << bad.schema << "\n"
        << grammar.status();
  }
  EXPECT_EQ(base::ReasonOf(CompileSchema("{").status()), base::Reason::kInvalidArgument);
}

// Small texts that ask for much: an error or a grammar, and soon.
TEST(Schema, HostileSizes) {
  std::string deep;
  for (int i = 0; i < 5000; ++i) deep += R"({"items":)";
  EXPECT_FALSE(CompileSchema(deep).ok());
  std::string doubling = R"({"$ref":"#/$defs/d0","$defs":{)";
  for (int i = 0; i < 40; ++i) {
    const std::string next = R"({"$ref":"#/$defs/d)" + std::to_string(i + 1) + "\"}";
    doubling += "\"d" + std::to_string(i) + R"(":{"anyOf":[)" + next + "," + next + "]},";
  }
  doubling += R"("d40":{"type":"boolean"}}})";
  EXPECT_EQ(Answers(doubling).size(), 40u);
  std::string both = R"({"$ref":"#/$defs/d0","$defs":{)";
  for (int i = 0; i < 40; ++i) {
    const std::string next = R"({"$ref":"#/$defs/d)" + std::to_string(i + 1) + "\"}";
    both += "\"d" + std::to_string(i) + R"(":{"allOf":[)" + next + "," + next + "]},";
  }
  both += R"("d40":{"type":"boolean"}}})";
  (void)CompileSchema(both);
  EXPECT_FALSE(CompileSchema(R"({"type":"string","pattern":"(a|b)*a(a|b){20}"})").ok());
  EXPECT_FALSE(CompileSchema(R"({"type":"string","pattern":"((a{1000}){1000}){1000}"})").ok());
}

}  // namespace
}  // namespace expertmesh::model

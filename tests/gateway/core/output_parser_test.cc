#include "gateway/core/output_parser.h"

#include <gtest/gtest.h>

#include <ostream>

namespace expertmesh::gateway {

void PrintTo(const OutputDelta& delta, std::ostream* out) {
  *out << static_cast<int>(delta.kind) << ":" << delta.name << ":" << delta.text;
}

namespace {

using model::ChatEncoding;
using Kind = OutputDelta::Kind;

constexpr ChatEncoding kV3 = ChatEncoding::kV3;
constexpr ChatEncoding kR1 = ChatEncoding::kR1;
constexpr ChatEncoding kV31 = ChatEncoding::kV31;
constexpr ChatEncoding kV32 = ChatEncoding::kV32;
constexpr ChatEncoding kV4 = ChatEncoding::kV4;

OutputDelta Reasoning(std::string text) { return {Kind::kReasoning, std::move(text)}; }
OutputDelta Content(std::string text) { return {Kind::kContent, std::move(text)}; }
OutputDelta Call(std::string name, std::string arguments) {
  return {Kind::kToolCall, std::move(arguments), std::move(name)};
}

// The pushes' deltas with neighbours of one kind joined.
void Join(const std::vector<OutputDelta>& from, std::vector<OutputDelta>& to) {
  for (const OutputDelta& delta : from) {
    const bool joins = !to.empty() && delta.kind != Kind::kToolCall && to.back().kind == delta.kind;
    if (joins) {
      to.back().text += delta.text;
    } else {
      to.push_back(delta);
    }
  }
}

struct Golden {
  const char* what;
  ChatEncoding encoding;
  bool reasoning;
  std::string text;
  std::vector<OutputDelta> deltas;
};

std::vector<OutputDelta> Parse(const Golden& golden, const std::vector<size_t>& cuts) {
  OutputParser parser(golden.encoding, golden.reasoning, true);
  std::vector<OutputDelta> deltas;
  size_t begin = 0;
  for (const size_t cut : cuts) {
    Join(parser.Push(std::string_view(golden.text).substr(begin, cut - begin)), deltas);
    begin = cut;
  }
  Join(parser.Push(std::string_view(golden.text).substr(begin)), deltas);
  Join(parser.Finish(), deltas);
  const auto is_call = [](const OutputDelta& delta) { return delta.kind == Kind::kToolCall; };
  EXPECT_EQ(parser.calls(), std::count_if(deltas.begin(), deltas.end(), is_call)) << golden.what;
  return deltas;
}

const std::string kV4Call =
    "<｜DSML｜tool_calls>\n<｜DSML｜invoke name=\"f\">\n"
    "<｜DSML｜parameter name=\"a\" string=\"true\">x \"é\"\n</b></｜DSML｜parameter>\n"
    "<｜DSML｜parameter name=\"n\" string=\"false\">[1, {\"k\": 2}]</｜DSML｜parameter>\n"
    "<｜DSML｜parameter name=\"bad\" string=\"false\">[1</｜DSML｜parameter>\n"
    "</｜DSML｜invoke>\n<｜DSML｜invoke name=\"g\">\n</｜DSML｜invoke>\n</｜DSML｜tool_calls>";
const std::string kV4Arguments =
    "{\"a\": \"x \\\"é\\\"\\n</b>\", \"n\": [1, {\"k\": 2}], \"bad\": \"[1\"}";
const std::string kV32Call =
    "<｜DSML｜function_calls>\n<｜DSML｜invoke name=\"f\">\n</｜DSML｜invoke>\n"
    "</｜DSML｜function_calls>";
const std::string kV31Call =
    "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>f<｜tool▁sep｜>{\"a\": 1}<｜tool▁call▁end｜>"
    "<｜tool▁call▁begin｜>g<｜tool▁sep｜>{}<｜tool▁call▁end｜><｜tool▁calls▁end｜>";
const std::string kV3Call =
    "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>f\n```json\n{\"a\":\n 1}\n```"
    "<｜tool▁call▁end｜>\n<｜tool▁call▁begin｜>function<｜tool▁sep｜>g\n```json\n{}\n```"
    "<｜tool▁call▁end｜><｜tool▁calls▁end｜>";
const std::string kCut = kV4Call.substr(0, kV4Call.find("</｜DSML｜invoke>"));
const std::string kAfterOne = kV4Call.substr(0, kV4Call.find("<｜DSML｜invoke name=\"g\">"));

const Golden kGoldens[] = {
    {"nothing", kV4, false, "", {}},
    {"content", kV4, false, "a < b, é 😀\n\n", {Content("a < b, é 😀\n\n")}},
    {"reasoning", kV31, true, "why</think>so", {Reasoning("why"), Content("so")}},
    {"</think> counts once",
     kV31,
     true,
     "a</think>b</think>c",
     {Reasoning("a"), Content("b</think>c")}},
    {"</think> without reasoning", kV31, false, "b</think>c", {Content("b</think>c")}},
    {"reasoning alone", kR1, true, "why < </thin", {Reasoning("why < </thin")}},
    {"calls",
     kV3,
     false,
     "c" + kV3Call,
     {Content("c"), Call("f", "{\"a\":\n 1}"), Call("g", "{}")}},
    {"calls", kV31, false, kV31Call, {Call("f", "{\"a\": 1}"), Call("g", "{}")}},
    {"calls", kV32, false, "c\n\n" + kV32Call, {Content("c"), Call("f", "{}")}},
    {"calls",
     kV4,
     true,
     "why</think>c\n\n" + kV4Call,
     {Reasoning("why"), Content("c"), Call("f", kV4Arguments), Call("g", "{}")}},
    {"calls without </think>",
     kV4,
     true,
     "why\n\n" + kV4Call,
     {Reasoning("why"), Call("f", kV4Arguments), Call("g", "{}")}},
    {"text behind calls", kV32, false, kV32Call + "!", {Call("f", "{}"), Content("!")}},
    {"the other block's name", kV4, false, kV32Call, {Content(kV32Call)}},
    {"an open call", kV4, false, "c\n\n" + kCut, {Content("c\n\n" + kCut)}},
    {"an open block behind a call",
     kV4,
     false,
     kAfterOne,
     {Call("f", kV4Arguments), Content("\n")}},
    {"an open marker", kV4, false, "c\n\n<｜DSML｜tool_", {Content("c\n\n<｜DSML｜tool_")}},
    {"a block of nothing",
     kV4,
     false,
     "<｜DSML｜tool_calls>\n</｜DSML｜tool_calls>",
     {Content("<｜DSML｜tool_calls>\n</｜DSML｜tool_calls>")}},
    {"a block of something else",
     kV4,
     false,
     "<｜DSML｜tool_calls>no",
     {Content("<｜DSML｜tool_calls>no")}},
    {"a call without a name",
     kV31,
     false,
     "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜><｜tool▁sep｜>{}<｜tool▁call▁end｜>",
     {Content("<｜tool▁calls▁begin｜><｜tool▁call▁begin｜><｜tool▁sep｜>{}<｜tool▁call▁end｜>")}},
    {"bytes that are no text",
     kV4,
     true,
     "\xff\xc3</think>\xf0\x9f",
     {Reasoning("\xff\xc3"), Content("\xf0\x9f")}},
};

TEST(OutputParser, Goldens) {
  for (const Golden& golden : kGoldens) EXPECT_EQ(Parse(golden, {}), golden.deltas) << golden.what;
}

// Every cut into two, also inside characters, and byte by byte.
TEST(OutputParser, MarkersMayBeSplitAnywhere) {
  for (const Golden& golden : kGoldens) {
    std::vector<size_t> all;
    for (size_t cut = 0; cut <= golden.text.size(); ++cut) {
      EXPECT_EQ(Parse(golden, {cut}), golden.deltas) << golden.what << " cut at " << cut;
      all.push_back(cut);
    }
    EXPECT_EQ(Parse(golden, all), golden.deltas) << golden.what << " byte by byte";
  }
}

TEST(OutputParser, PlainTextIsNotHeldBack) {
  OutputParser parser(kV4, true, true);
  EXPECT_EQ(parser.Push("a"), std::vector<OutputDelta>{Reasoning("a")});
  EXPECT_EQ(parser.Push("</thi"), std::vector<OutputDelta>{});
  EXPECT_EQ(parser.Push("s"), std::vector<OutputDelta>{Reasoning("</this")});
  EXPECT_TRUE(parser.reasoning());
  parser.Push("</think>");
  EXPECT_FALSE(parser.reasoning());
  EXPECT_EQ(parser.Push("b\n"), std::vector<OutputDelta>{Content("b")});
  EXPECT_EQ(parser.Push("c"), std::vector<OutputDelta>{Content("\nc")});
}

TEST(OutputParser, CallsAreContentWhereNoneIsOffered) {
  OutputParser parser(kV31, false, false);
  EXPECT_EQ(parser.Push(kV31Call), std::vector<OutputDelta>{Content(kV31Call)});
  EXPECT_EQ(parser.calls(), 0u);
}

TEST(OutputParser, TheTokenEndsReasoningOnce) {
  OutputParser parser(kV31, true, true);
  parser.Push("a</th");
  EXPECT_EQ(parser.EndReasoning(), std::vector<OutputDelta>{Reasoning("</th")});
  EXPECT_EQ(parser.EndReasoning(), std::vector<OutputDelta>{});
  EXPECT_EQ(parser.Push("b"), std::vector<OutputDelta>{Content("b")});
}

}  // namespace
}  // namespace expertmesh::gateway

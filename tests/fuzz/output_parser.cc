// An answer's text, whole and in pieces: the same deltas, and no text lost or made up where there
// are no calls. The first two bytes choose form, mode and cuts.
#include "gateway/core/output_parser.h"

#include <string>

#include "tests/fuzz/fuzz.h"

namespace expertmesh::fuzz {
namespace {

using gateway::OutputDelta;
using gateway::OutputParser;

void Join(const std::vector<OutputDelta>& from, std::vector<OutputDelta>& to) {
  for (const OutputDelta& delta : from) {
    const bool joins =
        !to.empty() && delta.kind != OutputDelta::Kind::kToolCall && to.back().kind == delta.kind;
    if (joins) {
      to.back().text += delta.text;
    } else {
      to.push_back(delta);
    }
  }
}

std::vector<OutputDelta> Parse(OutputParser parser, std::string_view text, size_t piece) {
  std::vector<OutputDelta> deltas;
  for (size_t at = 0; at < text.size(); at += piece) {
    Join(parser.Push(text.substr(at, piece)), deltas);
  }
  Join(parser.Finish(), deltas);
  return deltas;
}

}  // namespace
}  // namespace expertmesh::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace expertmesh;
  if (size < 2) return 0;
  const auto encoding = static_cast<model::ChatEncoding>(data[0] % 6);
  const bool reasoning = (data[0] & 0x40) != 0;
  const bool tools = (data[0] & 0x80) != 0;
  const std::string_view text = fuzz::Text(data + 2, size - 2);
  const gateway::OutputParser parser(encoding, reasoning, tools);
  const auto whole = fuzz::Parse(parser, text, text.size() + 1);
  fuzz::Require(whole == fuzz::Parse(parser, text, 1 + data[1] % 16), "cuts change nothing");
  if (tools || reasoning) return 0;
  std::string out;
  for (const gateway::OutputDelta& delta : whole) out += delta.text;
  fuzz::Require(out == text, "plain text comes through");
  return 0;
}

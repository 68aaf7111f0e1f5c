#include "gateway/core/output_parser.h"

#include <algorithm>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "model/tokenizer/python_json.h"
#include "model/tokenizer/special_tokens.h"
#include "model/tokenizer/utf8.h"

namespace expertmesh::gateway {
namespace {

namespace special = model::special;
using model::ChatEncoding;

constexpr std::string_view kSpaces = " \t\r\n";
// Encoders put a blank line between content and a DSML block; it belongs to neither.
constexpr std::string_view kBlankLine = "\n\n";

// Takes `text` off the front; false, and nothing taken, if it is not there.
bool TakeText(std::string_view& rest, std::string_view text) {
  if (!rest.starts_with(text)) return false;
  rest.remove_prefix(text.size());
  return true;
}

// What stands before `end`, which is taken too.
std::optional<std::string_view> TakeUntil(std::string_view& rest, std::string_view end) {
  const size_t at = rest.find(end);
  if (at == std::string_view::npos) return std::nullopt;
  const std::string_view text = rest.substr(0, at);
  rest.remove_prefix(at + end.size());
  return text;
}

void SkipSpaces(std::string_view& rest) {
  rest.remove_prefix(std::min(rest.find_first_not_of(kSpaces), rest.size()));
}

std::string JsonString(std::string_view text) {
  return model::PythonJson(boost::json::value(boost::json::string(text.data(), text.size())));
}

// Bytes at the end that could begin the marker.
size_t OpenPrefix(std::string_view text, std::string_view marker) {
  for (size_t bytes = std::min(text.size(), marker.size() - 1); bytes > 0; --bytes) {
    if (text.ends_with(marker.substr(0, bytes))) return bytes;
  }
  return 0;
}

// Bytes of a character that is still open.
size_t OpenCharacter(std::string_view text) {
  for (size_t bytes = 1; bytes <= std::min<size_t>(3, text.size()); ++bytes) {
    if (model::DecodeUtf8(text.substr(text.size() - bytes)).truncated) return bytes;
  }
  return 0;
}

void Append(OutputDelta::Kind kind, std::string_view text, std::vector<OutputDelta>& deltas) {
  if (text.empty()) return;
  if (deltas.empty() || deltas.back().kind != kind) deltas.push_back({.kind = kind});
  deltas.back().text += text;
}

}  // namespace

OutputParser::Form OutputParser::FormOf(ChatEncoding encoding) {
  const std::string dsml(special::kDsml);
  switch (encoding) {
    case ChatEncoding::kNone:
      return {};
    case ChatEncoding::kV3:
    case ChatEncoding::kR1:
    case ChatEncoding::kV31:
      return {std::string(special::kToolCallsBegin), std::string(special::kToolCallsEnd),
              std::string(special::kToolCallBegin), std::string(special::kToolCallEnd)};
    case ChatEncoding::kV32:
    case ChatEncoding::kV4: {
      const std::string block = encoding == ChatEncoding::kV4 ? "tool_calls>" : "function_calls>";
      return {absl::StrCat("<", dsml, block), absl::StrCat("</", dsml, block),
              absl::StrCat("<", dsml, "invoke"), absl::StrCat("</", dsml, "invoke>")};
    }
  }
  return {};
}

OutputParser::OutputParser(ChatEncoding encoding, bool reasoning, bool tools)
    : encoding_(encoding),
      form_(tools ? FormOf(encoding) : Form{}),
      state_(reasoning ? State::kReasoning : State::kContent) {
  if (form_.block_begin.empty()) return;
  markers_ = {form_.block_begin};
  if (encoding == ChatEncoding::kV32 || encoding == ChatEncoding::kV4) {
    markers_.push_back(absl::StrCat(std::string(kBlankLine), form_.block_begin));
  }
}

std::vector<OutputDelta> OutputParser::Push(std::string_view text) {
  std::vector<OutputDelta> deltas;
  buffer_ += text;
  while (Step(deltas)) {
  }
  return deltas;
}

std::vector<OutputDelta> OutputParser::EndReasoning() {
  std::vector<OutputDelta> deltas;
  if (state_ != State::kReasoning) return deltas;
  Emit(buffer_.size(), deltas);
  state_ = State::kContent;
  return deltas;
}

std::vector<OutputDelta> OutputParser::Finish() {
  std::vector<OutputDelta> deltas;
  if (state_ == State::kBlock) Break();
  Emit(buffer_.size(), deltas);
  return deltas;
}

// One step of the state machine; false when more text is needed.
bool OutputParser::Step(std::vector<OutputDelta>& deltas) {
  return state_ == State::kBlock ? StepBlock(deltas) : StepText(deltas);
}

bool OutputParser::StepText(std::vector<OutputDelta>& deltas) {
  size_t first = std::string::npos;
  std::string_view found;
  const auto look_for = [&](std::string_view marker) {
    const size_t at = buffer_.find(marker);
    if (at >= first) return;
    first = at;
    found = marker;
  };
  if (state_ == State::kReasoning) look_for(special::kEndThink);
  if (state_ != State::kBroken) {
    for (const std::string& marker : markers_) look_for(marker);
  }
  if (found.empty()) {
    Emit(buffer_.size() - HeldBack(), deltas);
    return false;
  }
  Emit(first, deltas);
  if (found == special::kEndThink) {
    state_ = State::kContent;
  } else {
    state_ = State::kBlock;  // a block ends reasoning too: models skip </think>
    opening_ = found;
  }
  buffer_.erase(0, found.size());
  return true;
}

bool OutputParser::StepBlock(std::vector<OutputDelta>& deltas) {
  std::string_view rest = buffer_;
  SkipSpaces(rest);
  if (TakeText(rest, form_.block_end)) {
    if (!opening_.empty()) {  // a block without a call is what the model wrote, not a call
      Break();
      return true;
    }
    buffer_ = std::string(rest);
    state_ = State::kContent;
    return true;
  }
  const size_t end = rest.find(form_.call_end);
  if (rest.starts_with(form_.call_begin)) {
    if (end == std::string_view::npos) return false;
    const std::string_view call =
        rest.substr(form_.call_begin.size(), end - form_.call_begin.size());
    std::optional<OutputDelta> parsed = ParseCall(call);
    if (!parsed.has_value()) {
      Break();
      return true;
    }
    deltas.push_back(*std::move(parsed));
    ++calls_;
    opening_.clear();
    buffer_ = std::string(rest.substr(end + form_.call_end.size()));
    return true;
  }
  // Not yet decided, or neither a call nor the end.
  const std::string_view begin = form_.call_begin;
  const std::string_view close = form_.block_end;
  if (begin.starts_with(rest) || close.starts_with(rest)) return false;
  Break();
  return true;
}

// A block that cannot be read: it and all behind it are content.
void OutputParser::Break() {
  buffer_.insert(0, opening_);
  opening_.clear();
  state_ = State::kBroken;
}

void OutputParser::Emit(size_t bytes, std::vector<OutputDelta>& deltas) {
  const bool reasoning = state_ == State::kReasoning;
  Append(reasoning ? OutputDelta::Kind::kReasoning : OutputDelta::Kind::kContent,
         std::string_view(buffer_).substr(0, bytes), deltas);
  buffer_.erase(0, bytes);
}

size_t OutputParser::HeldBack() const {
  size_t bytes = OpenCharacter(buffer_);
  if (state_ == State::kReasoning) bytes = std::max(bytes, OpenPrefix(buffer_, special::kEndThink));
  if (state_ == State::kBroken) return bytes;
  for (const std::string& marker : markers_) bytes = std::max(bytes, OpenPrefix(buffer_, marker));
  return bytes;
}

// What stands between the marks of a call.
std::optional<OutputDelta> OutputParser::ParseCall(std::string_view call) const {
  if (encoding_ == ChatEncoding::kV32 || encoding_ == ChatEncoding::kV4) return ParseDsmlCall(call);
  const std::optional<std::string_view> head = TakeUntil(call, special::kToolSep);
  if (!head.has_value()) return std::nullopt;
  OutputDelta delta{.kind = OutputDelta::Kind::kToolCall};
  if (encoding_ == ChatEncoding::kV31) {
    delta.name = *head;
    delta.text = call;
  } else {
    // "function", then the name, a line break and the arguments in a fence.
    const std::optional<std::string_view> name = TakeUntil(call, "\n```json\n");
    if (*head != "function" || !name.has_value()) return std::nullopt;
    const size_t end = call.rfind("```");
    if (end == std::string_view::npos) return std::nullopt;
    std::string_view arguments = call.substr(0, end);
    if (arguments.ends_with('\n')) arguments.remove_suffix(1);
    delta.name = *name;
    delta.text = arguments;
  }
  if (delta.name.empty()) return std::nullopt;
  return delta;
}

std::optional<OutputDelta> OutputParser::ParseDsmlCall(std::string_view call) const {
  const std::string begin = absl::StrCat("<", std::string(special::kDsml), "parameter name=\"");
  const std::string end = absl::StrCat("</", std::string(special::kDsml), "parameter>");
  SkipSpaces(call);
  if (!TakeText(call, "name=\"")) return std::nullopt;
  const std::optional<std::string_view> name = TakeUntil(call, "\">");
  if (!name.has_value() || name->empty()) return std::nullopt;
  std::string arguments;
  std::set<std::string_view> keys;
  for (SkipSpaces(call); !call.empty(); SkipSpaces(call)) {
    if (!TakeText(call, begin)) return std::nullopt;
    const std::optional<std::string_view> key = TakeUntil(call, "\" string=\"");
    const std::optional<std::string_view> is_string = TakeUntil(call, "\">");
    const std::optional<std::string_view> value = TakeUntil(call, end);
    if (!key.has_value() || !is_string.has_value() || !value.has_value()) return std::nullopt;
    if (*is_string != "true" && *is_string != "false") return std::nullopt;
    if (!keys.insert(*key).second) return std::nullopt;
    const bool raw = *is_string == "false" && model::ParseJson(*value).has_value();
    absl::StrAppend(&arguments, arguments.empty() ? "" : ", ", JsonString(*key), ": ",
                    raw ? std::string(*value) : JsonString(*value));
  }
  return OutputDelta{.kind = OutputDelta::Kind::kToolCall,
                     .text = absl::StrCat("{", arguments, "}"),
                     .name = std::string(*name)};
}

}  // namespace expertmesh::gateway

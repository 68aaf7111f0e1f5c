#include "gateway/core/messages_response.h"

#include <boost/json.hpp>
#include <utility>

#include "absl/strings/str_cat.h"

namespace expertmesh::gateway {
namespace {

namespace json = boost::json;

std::string Event(const char* type, json::object fields) {
  json::object body = {{"type", type}};
  for (auto& [key, value] : fields) body[key] = std::move(value);
  return absl::StrCat("event: ", type, "\ndata: ", json::serialize(body), "\n\n");
}

json::object UsageObject(const Usage& usage) {
  return {{"input_tokens", usage.prompt_tokens - usage.cached_tokens},
          {"cache_creation_input_tokens", 0},
          {"cache_read_input_tokens", usage.cached_tokens},
          {"output_tokens", usage.completion_tokens}};
}

const char* StopReason(Ending ending) {
  switch (ending) {
    case Ending::kStop:
      return "end_turn";
    case Ending::kStopString:
      return "stop_sequence";
    case Ending::kLength:
      return "max_tokens";
    case Ending::kToolCalls:
      break;
  }
  return "tool_use";
}

json::value StopSequence(const WholeChoice& end) {
  return end.ending == Ending::kStopString ? json::value(end.stop) : json::value(nullptr);
}

// The arguments as an object; what is none comes under one key, so that nothing is lost.
json::value InputOf(const ToolCall& call) {
  boost::system::error_code error;
  json::value input = json::parse(call.arguments, error);
  if (!error && input.is_object()) return input;
  return json::object{{"arguments", call.arguments}};
}

// 529 is their sign for a server that has no room or no part of itself.
const char* ErrorType(int status) {
  switch (status) {
    case 401:
      return "authentication_error";
    case 403:
      return "permission_error";
    case 404:
      return "not_found_error";
    case 413:
      return "request_too_large";
    case 429:
      return "rate_limit_error";
    case 503:
      return "overloaded_error";
    case 504:
      return "timeout_error";
    default:
      return status < 500 ? "invalid_request_error" : "api_error";
  }
}

json::object ErrorObject(const ApiError& error) {
  return {{"type", ErrorType(error.http_status)}, {"message", error.message}};
}

}  // namespace

json::object MessagesFormat::Message(const Usage& usage) const {
  return {{"id", id_},
          {"type", "message"},
          {"role", "assistant"},
          {"model", model_},
          {"content", json::array{}},
          {"stop_reason", nullptr},
          {"stop_sequence", nullptr},
          {"usage", UsageObject(usage)}};
}

std::string MessagesFormat::Begin(const Usage& usage) {
  return Event("message_start", {{"message", Message(usage)}});
}

std::string MessagesFormat::Open(Block block) {
  if (open_ == block) return "";
  const std::string closed = Close();
  open_ = block;
  const json::object content =
      block == Block::kThinking
          ? json::object{{"type", "thinking"}, {"thinking", ""}, {"signature", ""}}
          : json::object{{"type", "text"}, {"text", ""}};
  return closed + Event("content_block_start", {{"index", index_}, {"content_block", content}});
}

std::string MessagesFormat::Close() {
  if (open_ == Block::kNone) return "";
  open_ = Block::kNone;
  return Event("content_block_stop", {{"index", index_++}});
}

std::string MessagesFormat::Delta(uint32_t, const ChoiceParts& parts, size_t) {
  std::string out;
  const auto delta = [&](json::object fields) {
    out += Event("content_block_delta", {{"index", index_}, {"delta", std::move(fields)}});
  };
  if (!parts.reasoning.empty()) {
    out += Open(Block::kThinking);
    delta({{"type", "thinking_delta"}, {"thinking", parts.reasoning}});
  }
  if (!parts.content.empty()) {
    out += Open(Block::kText);
    delta({{"type", "text_delta"}, {"text", parts.content}});
  }
  for (const ToolCall& call : parts.calls) {
    out += Close();
    const json::object block = {
        {"type", "tool_use"}, {"id", call.id}, {"name", call.name}, {"input", json::object{}}};
    out += Event("content_block_start", {{"index", index_}, {"content_block", block}});
    delta({{"type", "input_json_delta"}, {"partial_json", json::serialize(InputOf(call))}});
    out += Event("content_block_stop", {{"index", index_++}});
  }
  return out;
}

std::string MessagesFormat::EndChoice(uint32_t, const WholeChoice& end, const Usage& usage) {
  const json::object delta = {{"stop_reason", StopReason(end.ending)},
                              {"stop_sequence", StopSequence(end)}};
  return Close() + Event("message_delta", {{"delta", delta}, {"usage", UsageObject(usage)}});
}

std::string MessagesFormat::End(const Usage&) { return Event("message_stop", {}); }

std::string MessagesFormat::Fail(const ApiError& error) {
  return Event("error", {{"error", ErrorObject(error)}});
}

std::string MessagesFormat::Whole(const std::vector<WholeChoice>& choices, const Usage& usage) {
  const WholeChoice& choice = choices.front();
  json::array content;
  if (!choice.parts.reasoning.empty()) {
    content.push_back(json::object{
        {"type", "thinking"}, {"thinking", choice.parts.reasoning}, {"signature", ""}});
  }
  if (!choice.parts.content.empty() || choice.parts.calls.empty()) {
    content.push_back(json::object{{"type", "text"}, {"text", choice.parts.content}});
  }
  for (const ToolCall& call : choice.parts.calls) {
    content.push_back(json::object{
        {"type", "tool_use"}, {"id", call.id}, {"name", call.name}, {"input", InputOf(call)}});
  }
  json::object message = Message(usage);
  message["content"] = std::move(content);
  message["stop_reason"] = StopReason(choice.ending);
  message["stop_sequence"] = StopSequence(choice);
  return json::serialize(message);
}

std::string MessagesErrorBody(const ApiError& error) {
  return json::serialize(json::object{{"type", "error"}, {"error", ErrorObject(error)}});
}

std::string TokenCountBody(size_t tokens) {
  return json::serialize(json::object{{"input_tokens", tokens}});
}

}  // namespace expertmesh::gateway

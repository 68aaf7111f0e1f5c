#include "gateway/core/responses_response.h"

#include <boost/json.hpp>
#include <utility>

#include "absl/strings/str_cat.h"
#include "model/tokenizer/python_json.h"

namespace expertmesh::gateway {
namespace {

namespace json = boost::json;

json::object UsageObject(const Usage& usage) {
  return {{"input_tokens", usage.prompt_tokens},
          {"input_tokens_details", json::object{{"cached_tokens", usage.cached_tokens}}},
          {"output_tokens", usage.completion_tokens},
          {"output_tokens_details", json::object{{"reasoning_tokens", usage.reasoning_tokens}}},
          {"total_tokens", uint64_t{usage.prompt_tokens} + usage.completion_tokens}};
}

}  // namespace

std::string ResponsesFormat::Id(const char* kind) const {
  return absl::StrCat(kind, "_", head_.digits, output_.size());
}

json::object ResponsesFormat::Response(const char* status) const {
  return {{"id", "resp_" + head_.digits},
          {"object", "response"},
          {"created_at", head_.created},
          {"status", status},
          {"background", false},
          {"error", nullptr},
          {"incomplete_details", nullptr},
          {"instructions", nullptr},
          {"max_output_tokens",
           head_.max_tokens == 0 ? json::value(nullptr) : json::value(head_.max_tokens)},
          {"model", head_.model},
          {"output", output_},
          {"parallel_tool_calls", head_.parallel_calls},
          {"previous_response_id", nullptr},
          {"reasoning", json::object{{"effort", nullptr}, {"summary", nullptr}}},
          {"store", false},
          {"temperature", head_.temperature},
          {"text",
           json::object{{"format", head_.text_format.empty()
                                       ? json::value(json::object{{"type", "text"}})
                                       : model::ParseJson(head_.text_format).value_or(nullptr)}}},
          {"tool_choice", "auto"},
          {"tools", json::array{}},
          {"top_p", head_.top_p},
          {"truncation", "disabled"},
          {"usage", nullptr},
          {"metadata", json::object{}}};
}

json::object ResponsesFormat::Ended(Ending ending, const Usage& usage) const {
  const bool cut = ending == Ending::kLength;
  json::object response = Response(cut ? "incomplete" : "completed");
  if (cut) response["incomplete_details"] = json::object{{"reason", "max_output_tokens"}};
  response["usage"] = UsageObject(usage);
  return response;
}

std::string ResponsesFormat::Event(const char* type, json::object fields) {
  json::object body = {{"type", type}, {"sequence_number", sequence_++}};
  for (auto& [key, value] : fields) body[key] = std::move(value);
  return absl::StrCat("event: ", type, "\ndata: ", json::serialize(body), "\n\n");
}

json::object ResponsesFormat::Part(Item item, const std::string& text) const {
  if (item == Item::kReasoning) return {{"type", "reasoning_text"}, {"text", text}};
  return {{"type", "output_text"},
          {"text", text},
          {"annotations", json::array{}},
          {"logprobs", json::array{}}};
}

json::object ResponsesFormat::ItemObject(Item item, const std::string& text,
                                         const char* status) const {
  const bool open = std::string_view(status) == "in_progress";
  const json::array content = open ? json::array{} : json::array{Part(item, text)};
  if (item == Item::kReasoning) {
    return {{"id", Id("rs")},
            {"type", "reasoning"},
            {"summary", json::array{}},
            {"content", content},
            {"status", status}};
  }
  return {{"id", Id("msg")},
          {"type", "message"},
          {"status", status},
          {"role", "assistant"},
          {"content", content}};
}

json::object ResponsesFormat::CallItem(const ToolCall& call) const {
  return {{"id", Id("fc")},     {"type", "function_call"}, {"status", "completed"},
          {"call_id", call.id}, {"name", call.name},       {"arguments", call.arguments}};
}

std::string ResponsesFormat::Begin(const Usage&) {
  std::string out = Event("response.created", {{"response", Response("in_progress")}});
  return out + Event("response.in_progress", {{"response", Response("in_progress")}});
}

std::string ResponsesFormat::Open(Item item) {
  if (open_ == item) return "";
  std::string out = Close();
  open_ = item;
  const json::object opened = ItemObject(item, "", "in_progress");
  out += Event("response.output_item.added", {{"output_index", output_.size()}, {"item", opened}});
  return out + Event("response.content_part.added", {{"item_id", opened.at("id")},
                                                     {"output_index", output_.size()},
                                                     {"content_index", 0},
                                                     {"part", Part(item, "")}});
}

std::string ResponsesFormat::Close() {
  if (open_ == Item::kNone) return "";
  const Item item = std::exchange(open_, Item::kNone);
  const std::string text = std::exchange(text_, "");
  const json::object done = ItemObject(item, text, "completed");
  const json::object at = {
      {"item_id", done.at("id")}, {"output_index", output_.size()}, {"content_index", 0}};
  json::object with_text = at;
  with_text["text"] = text;
  if (item == Item::kMessage) with_text["logprobs"] = json::array{};
  std::string out =
      Event(item == Item::kReasoning ? "response.reasoning_text.done" : "response.output_text.done",
            with_text);
  json::object with_part = at;
  with_part["part"] = Part(item, text);
  out += Event("response.content_part.done", with_part);
  out += Event("response.output_item.done", {{"output_index", output_.size()}, {"item", done}});
  output_.push_back(done);
  return out;
}

// A call comes whole: one delta with all of its arguments.
std::string ResponsesFormat::Call(const ToolCall& call) {
  const json::object done = CallItem(call);
  json::object begun = done;
  begun["status"] = "in_progress";
  begun["arguments"] = "";
  const json::object at = {{"item_id", done.at("id")}, {"output_index", output_.size()}};
  std::string out =
      Event("response.output_item.added", {{"output_index", output_.size()}, {"item", begun}});
  json::object delta = at;
  delta["delta"] = call.arguments;
  out += Event("response.function_call_arguments.delta", delta);
  json::object whole = at;
  whole["name"] = call.name;
  whole["arguments"] = call.arguments;
  out += Event("response.function_call_arguments.done", whole);
  out += Event("response.output_item.done", {{"output_index", output_.size()}, {"item", done}});
  output_.push_back(done);
  return out;
}

std::string ResponsesFormat::Delta(uint32_t, const ChoiceParts& parts, size_t) {
  std::string out;
  const auto text = [&](Item item, const char* type, const std::string& piece) {
    if (piece.empty()) return;
    out += Open(item);
    text_ += piece;
    json::object fields = {{"item_id", Id(item == Item::kReasoning ? "rs" : "msg")},
                           {"output_index", output_.size()},
                           {"content_index", 0},
                           {"delta", piece}};
    if (item == Item::kMessage) fields["logprobs"] = json::array{};
    out += Event(type, std::move(fields));
  };
  text(Item::kReasoning, "response.reasoning_text.delta", parts.reasoning);
  text(Item::kMessage, "response.output_text.delta", parts.content);
  for (const ToolCall& call : parts.calls) {
    out += Close();
    out += Call(call);
  }
  return out;
}

std::string ResponsesFormat::EndChoice(uint32_t, const WholeChoice& end, const Usage& usage) {
  const std::string closed = Close();
  const char* type = end.ending == Ending::kLength ? "response.incomplete" : "response.completed";
  return closed + Event(type, {{"response", Ended(end.ending, usage)}});
}

std::string ResponsesFormat::End(const Usage&) { return ""; }

std::string ResponsesFormat::Fail(const ApiError& error) {
  json::object response = Response("failed");
  response["error"] = json::object{{"code", error.code}, {"message", error.message}};
  return Event("response.failed", {{"response", std::move(response)}});
}

std::string ResponsesFormat::Whole(const std::vector<WholeChoice>& choices, const Usage& usage) {
  const WholeChoice& choice = choices.front();
  if (!choice.parts.reasoning.empty()) {
    output_.push_back(ItemObject(Item::kReasoning, choice.parts.reasoning, "completed"));
  }
  if (!choice.parts.content.empty() || choice.parts.calls.empty()) {
    output_.push_back(ItemObject(Item::kMessage, choice.parts.content, "completed"));
  }
  for (const ToolCall& call : choice.parts.calls) output_.push_back(CallItem(call));
  return json::serialize(Ended(choice.ending, usage));
}

}  // namespace expertmesh::gateway

#include "gateway/core/openai_response.h"

#include <boost/json.hpp>
#include <utility>

#include "absl/strings/str_cat.h"

namespace expertmesh::gateway {
namespace {

namespace json = boost::json;

json::string_view View(std::string_view text) { return {text.data(), text.size()}; }

json::object UsageObject(const Usage& usage) {
  return {{"prompt_tokens", usage.prompt_tokens},
          {"completion_tokens", usage.completion_tokens},
          {"total_tokens", uint64_t{usage.prompt_tokens} + usage.completion_tokens},
          {"prompt_tokens_details", json::object{{"cached_tokens", usage.cached_tokens}}},
          {"completion_tokens_details", json::object{{"reasoning_tokens", usage.reasoning_tokens}}},
          {"prompt_cache_hit_tokens", usage.cached_tokens},
          {"prompt_cache_miss_tokens", usage.prompt_tokens - usage.cached_tokens}};
}

// Clients read reasoning under either name (docs: gateway/README.md).
void AddReasoning(const std::string& reasoning, json::object& to) {
  to["reasoning_content"] = reasoning;
  to["reasoning"] = reasoning;
}

json::object CallObject(const ToolCall& call) {
  return {{"id", call.id},
          {"type", "function"},
          {"function", json::object{{"name", call.name}, {"arguments", call.arguments}}}};
}

json::object TokenObject(const TokenText& token) {
  json::array bytes;
  for (const char c : token.bytes) bytes.emplace_back(static_cast<unsigned char>(c));
  return {{"token", token.text}, {"logprob", token.logprob}, {"bytes", std::move(bytes)}};
}

json::object ChatLogprobs(const std::vector<ChosenToken>& tokens) {
  json::array content;
  for (const ChosenToken& chosen : tokens) {
    json::object entry = TokenObject(chosen.token);
    json::array likeliest;
    for (const TokenText& token : chosen.likeliest) likeliest.push_back(TokenObject(token));
    entry["top_logprobs"] = std::move(likeliest);
    content.push_back(std::move(entry));
  }
  return {{"content", std::move(content)}, {"refusal", nullptr}};
}

// `offset`: bytes of the choice's text before the first of these tokens.
json::object TextLogprobs(const std::vector<ChosenToken>& tokens, size_t offset) {
  json::array texts;
  json::array logprobs;
  json::array likeliest;
  json::array offsets;
  for (const ChosenToken& chosen : tokens) {
    texts.emplace_back(chosen.token.text);
    logprobs.emplace_back(chosen.token.logprob);
    json::object others;
    for (const TokenText& token : chosen.likeliest) others[token.text] = token.logprob;
    likeliest.push_back(std::move(others));
    offsets.emplace_back(offset);
    offset += chosen.token.bytes.size();
  }
  return {{"tokens", std::move(texts)},
          {"token_logprobs", std::move(logprobs)},
          {"top_logprobs", std::move(likeliest)},
          {"text_offset", std::move(offsets)}};
}

}  // namespace

std::string_view FinishReason(Ending ending) {
  switch (ending) {
    case Ending::kLength:
      return "length";
    case Ending::kToolCalls:
      return "tool_calls";
    case Ending::kStop:
    case Ending::kStopString:
      break;
  }
  return "stop";
}

json::object OpenAiFormat::Body(bool chunk) const {
  const char* object = !head_.chat ? "text_completion"
                       : chunk     ? "chat.completion.chunk"
                                   : "chat.completion";
  return {{"id", head_.id},
          {"object", object},
          {"created", head_.created},
          {"model", head_.model},
          {"system_fingerprint", head_.fingerprint}};
}

json::value OpenAiFormat::Logprobs(uint32_t choice, const ChoiceParts& parts) {
  const size_t offset = text_bytes_[choice];
  text_bytes_[choice] += parts.content.size();
  if (!head_.logprobs) return nullptr;
  if (head_.chat) return ChatLogprobs(parts.tokens);
  return TextLogprobs(parts.tokens, offset);
}

// `delta` counts in chat only, `text` in completions only.
std::string OpenAiFormat::Chunk(uint32_t choice, json::object delta, const std::string& text,
                                json::value logprobs, json::value finish_reason) const {
  json::object out{{"index", choice}};
  if (head_.chat) {
    out["delta"] = std::move(delta);
  } else {
    out["text"] = text;
  }
  out["logprobs"] = std::move(logprobs);
  out["finish_reason"] = std::move(finish_reason);
  json::object body = Body(true);
  body["choices"] = json::array{std::move(out)};
  if (head_.include_usage) body["usage"] = nullptr;
  return Sse(json::serialize(body));
}

// The role of every choice; completions have none.
std::string OpenAiFormat::Begin(const Usage&) {
  std::string out;
  for (uint32_t i = 0; head_.chat && i < head_.choices; ++i) {
    out += Chunk(i, {{"role", "assistant"}, {"content", ""}}, "", nullptr, nullptr);
  }
  return out;
}

std::string OpenAiFormat::Delta(uint32_t choice, const ChoiceParts& parts, size_t first_call) {
  json::object delta;
  if (!parts.reasoning.empty()) AddReasoning(parts.reasoning, delta);
  if (!parts.content.empty()) delta["content"] = parts.content;
  if (!parts.calls.empty()) {
    json::array calls;
    for (const ToolCall& call : parts.calls) {
      json::object entry = {{"index", first_call++}};
      for (auto& [key, value] : CallObject(call)) entry[key] = std::move(value);
      calls.push_back(std::move(entry));
    }
    delta["tool_calls"] = std::move(calls);
  }
  return Chunk(choice, std::move(delta), parts.content, Logprobs(choice, parts), nullptr);
}

std::string OpenAiFormat::EndChoice(uint32_t choice, const WholeChoice& end, const Usage&) {
  return Chunk(choice, {}, "", nullptr, View(FinishReason(end.ending)));
}

// With stream_options.include_usage an extra chunk of empty choices.
std::string OpenAiFormat::End(const Usage& usage) {
  std::string out;
  if (head_.include_usage) {
    json::object body = Body(true);
    body["choices"] = json::array{};
    body["usage"] = UsageObject(usage);
    out = Sse(json::serialize(body));
  }
  return absl::StrCat(out, std::string(kSseDone));
}

std::string OpenAiFormat::Fail(const ApiError& error) { return Sse(ErrorBody(error)); }

std::string OpenAiFormat::Whole(const std::vector<WholeChoice>& choices, const Usage& usage) {
  json::array list;
  for (uint32_t i = 0; i < choices.size(); ++i) {
    const ChoiceParts& parts = choices[i].parts;
    json::object choice{{"index", i}};
    if (head_.chat) {
      json::object message{{"role", "assistant"}, {"content", parts.content}, {"refusal", nullptr}};
      if (head_.thinking) AddReasoning(parts.reasoning, message);
      if (!parts.calls.empty()) {
        if (parts.content.empty()) message["content"] = nullptr;
        json::array calls;
        for (const ToolCall& call : parts.calls) calls.push_back(CallObject(call));
        message["tool_calls"] = std::move(calls);
      }
      choice["message"] = std::move(message);
    } else {
      choice["text"] = parts.content;
    }
    choice["logprobs"] = Logprobs(i, parts);
    choice["finish_reason"] = View(FinishReason(choices[i].ending));
    list.push_back(std::move(choice));
  }
  json::object body = Body(false);
  body["choices"] = std::move(list);
  body["usage"] = UsageObject(usage);
  return json::serialize(body);
}

std::string ErrorBody(const ApiError& error) {
  const auto or_null = [](const std::string& text) {
    return text.empty() ? json::value(nullptr) : json::value(text);
  };
  return json::serialize(json::object{{"error", json::object{{"message", error.message},
                                                             {"type", error.type},
                                                             {"param", or_null(error.param)},
                                                             {"code", or_null(error.code)}}}});
}

std::string ModelBody(const std::string& id, int64_t created) {
  return json::serialize(json::object{
      {"id", id}, {"object", "model"}, {"created", created}, {"owned_by", "expertmesh"}});
}

std::string ModelsBody(const std::string& id, int64_t created) {
  return absl::StrCat(R"({"object":"list","data":[)", ModelBody(id, created), "]}");
}

std::string Sse(const std::string& json) {
  return json.empty() ? "" : absl::StrCat("data: ", json, "\n\n");
}

}  // namespace expertmesh::gateway

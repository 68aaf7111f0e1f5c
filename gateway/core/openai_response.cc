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

json::object Body(const AnswerHead& head, bool chunk) {
  const char* object = !head.chat ? "text_completion"
                       : chunk    ? "chat.completion.chunk"
                                  : "chat.completion";
  return {{"id", head.id},
          {"object", object},
          {"created", head.created},
          {"model", head.model},
          {"system_fingerprint", head.fingerprint}};
}

// Clients read reasoning under either name (docs: gateway/README.md).
void AddReasoning(const std::string& reasoning, json::object& to) {
  to["reasoning_content"] = reasoning;
  to["reasoning"] = reasoning;
}

// `delta` counts in chat only, `text` in completions only.
std::string Chunk(const AnswerHead& head, json::object delta, const std::string& text,
                  json::value finish_reason) {
  json::object choice{{"index", 0}};
  if (head.chat) {
    choice["delta"] = std::move(delta);
  } else {
    choice["text"] = text;
  }
  choice["logprobs"] = nullptr;
  choice["finish_reason"] = std::move(finish_reason);
  json::object body = Body(head, true);
  body["choices"] = json::array{std::move(choice)};
  if (head.include_usage) body["usage"] = nullptr;
  return json::serialize(body);
}

}  // namespace

std::string WholeAnswer(const AnswerHead& head, const AnswerParts& parts,
                        std::string_view finish_reason, const Usage& usage) {
  json::object choice{{"index", 0}};
  if (head.chat) {
    json::object message{{"role", "assistant"}, {"content", parts.content}, {"refusal", nullptr}};
    if (head.thinking) AddReasoning(parts.reasoning, message);
    choice["message"] = std::move(message);
  } else {
    choice["text"] = parts.content;
  }
  choice["logprobs"] = nullptr;
  choice["finish_reason"] = View(finish_reason);
  json::object body = Body(head, false);
  body["choices"] = json::array{std::move(choice)};
  body["usage"] = UsageObject(usage);
  return json::serialize(body);
}

std::string RoleChunk(const AnswerHead& head) {
  if (!head.chat) return "";
  return Chunk(head, {{"role", "assistant"}, {"content", ""}}, "", nullptr);
}

std::string TextChunk(const AnswerHead& head, const AnswerParts& parts) {
  json::object delta;
  if (!parts.reasoning.empty()) AddReasoning(parts.reasoning, delta);
  if (!parts.content.empty()) delta["content"] = parts.content;
  return Chunk(head, std::move(delta), parts.content, nullptr);
}

std::string FinishChunk(const AnswerHead& head, std::string_view finish_reason) {
  return Chunk(head, {}, "", View(finish_reason));
}

std::string UsageChunk(const AnswerHead& head, const Usage& usage) {
  json::object body = Body(head, true);
  body["choices"] = json::array{};
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

#include "gateway/core/openai_response.h"

#include <boost/json.hpp>

#include "absl/strings/str_cat.h"

namespace expertmesh::gateway {
namespace {

namespace json = boost::json;

json::string_view View(std::string_view text) { return {text.data(), text.size()}; }

json::object UsageObject(const Usage& usage) {
  return {{"prompt_tokens", usage.prompt_tokens},
          {"completion_tokens", usage.completion_tokens},
          {"total_tokens", usage.prompt_tokens + usage.completion_tokens},
          {"prompt_tokens_details", json::object{{"cached_tokens", usage.cached_tokens}}},
          {"completion_tokens_details", json::object{{"reasoning_tokens", 0}}},
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

std::string Chunk(const AnswerHead& head, json::object choice, bool include_usage) {
  json::object body = Body(head, true);
  body["choices"] = json::array{std::move(choice)};
  if (include_usage) body["usage"] = nullptr;
  return json::serialize(body);
}

}  // namespace

std::string WholeAnswer(const AnswerHead& head, std::string_view text, std::string_view finish_reason,
                        const Usage& usage) {
  json::object choice{{"index", 0}, {"logprobs", nullptr}, {"finish_reason", View(finish_reason)}};
  if (head.chat) {
    choice["message"] = json::object{{"role", "assistant"}, {"content", View(text)}, {"refusal", nullptr}};
  } else {
    choice["text"] = View(text);
  }
  json::object body = Body(head, false);
  body["choices"] = json::array{std::move(choice)};
  body["usage"] = UsageObject(usage);
  return json::serialize(body);
}

std::string RoleChunk(const AnswerHead& head, bool include_usage) {
  if (!head.chat) return "";
  return Chunk(head,
               {{"index", 0},
                {"delta", json::object{{"role", "assistant"}, {"content", ""}}},
                {"logprobs", nullptr},
                {"finish_reason", nullptr}},
               include_usage);
}

std::string TextChunk(const AnswerHead& head, std::string_view text, bool include_usage) {
  json::object choice{{"index", 0}, {"logprobs", nullptr}, {"finish_reason", nullptr}};
  if (head.chat) {
    choice["delta"] = json::object{{"content", View(text)}};
  } else {
    choice["text"] = View(text);
  }
  return Chunk(head, std::move(choice), include_usage);
}

std::string FinishChunk(const AnswerHead& head, std::string_view finish_reason, bool include_usage) {
  json::object choice{{"index", 0}, {"logprobs", nullptr}, {"finish_reason", View(finish_reason)}};
  if (head.chat) {
    choice["delta"] = json::object{};
  } else {
    choice["text"] = "";
  }
  return Chunk(head, std::move(choice), include_usage);
}

std::string UsageChunk(const AnswerHead& head, const Usage& usage) {
  json::object body = Body(head, true);
  body["choices"] = json::array{};
  body["usage"] = UsageObject(usage);
  return json::serialize(body);
}

std::string ErrorBody(const ApiError& error) {
  const auto or_null = [](const std::string& text) {
    return text.empty() ? json::value(nullptr) : json::value(View(text));
  };
  return json::serialize(json::object{{"error", json::object{{"message", View(error.message)},
                                                             {"type", View(error.type)},
                                                             {"param", or_null(error.param)},
                                                             {"code", or_null(error.code)}}}});
}

std::string ModelBody(const std::string& id, int64_t created) {
  return json::serialize(json::object{
      {"id", id}, {"object", "model"}, {"created", created}, {"owned_by", "expertmesh"}});
}

std::string ModelsBody(const std::string& id, int64_t created) {
  return absl::StrCat("{\"object\":\"list\",\"data\":[", ModelBody(id, created), "]}");
}

std::string Sse(std::string_view json) { return absl::StrCat("data: ", std::string(json), "\n\n"); }

}  // namespace expertmesh::gateway

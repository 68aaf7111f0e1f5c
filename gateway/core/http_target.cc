#include "gateway/core/http_target.h"

#include <algorithm>
#include <utility>

#include "absl/strings/ascii.h"

namespace expertmesh::gateway {
namespace {

constexpr size_t kPathShownMax = 80;
constexpr size_t kIdBytesMax = 128;
constexpr std::string_view kModelsPrefix = "/models/";

int HexDigit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

// A '%' without two digits behind it stays as it is.
std::string PercentDecoded(std::string_view text) {
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    const bool escape = text[i] == '%' && i + 2 < text.size() && HexDigit(text[i + 1]) >= 0 &&
                        HexDigit(text[i + 2]) >= 0;
    if (escape) {
      out.push_back(static_cast<char>(HexDigit(text[i + 1]) * 16 + HexDigit(text[i + 2])));
      i += 2;
    } else {
      out.push_back(text[i]);
    }
  }
  return out;
}

// The path of "http://host/path?query"; proxies send such targets.
std::string_view PathOf(std::string_view target) {
  for (const std::string_view scheme : {"http://", "https://"}) {
    if (!target.starts_with(scheme)) continue;
    const size_t slash = target.find('/', scheme.size());
    target = slash == std::string_view::npos ? std::string_view("/") : target.substr(slash);
  }
  return target.substr(0, target.find_first_of("?#"));
}

}  // namespace

HttpTarget ParseTarget(std::string_view target) {
  std::string_view path = PathOf(target);
  HttpTarget out;
  out.path = Printable(path, kPathShownMax);
  if (path == "/" || path == "/v1" || path == "/v1/") {
    out.door = Door::kHint;
    return out;
  }
  for (const std::string_view prefix : {"/beta", "/anthropic", "/v1"}) {
    if (path.starts_with(prefix) && path.substr(prefix.size()).starts_with('/')) {
      path.remove_prefix(prefix.size());
    }
  }
  constexpr std::pair<std::string_view, Door> kDoors[] = {
      {"/chat/completions", Door::kChat},
      {"/completions", Door::kCompletions},
      {"/responses", Door::kResponses},
      {"/messages", Door::kMessages},
      {"/messages/count_tokens", Door::kCountTokens},
      {"/embeddings", Door::kEmbeddings},
      {"/models", Door::kModels}};
  for (const auto& [name, door] : kDoors) {
    if (path == name) out.door = door;
  }
  if (path.starts_with(kModelsPrefix) && path.size() > kModelsPrefix.size()) {
    out.door = Door::kModel;
    out.model = PercentDecoded(path.substr(kModelsPrefix.size()));
  }
  return out;
}

const char* MethodOf(Door door) {
  return IsGeneration(door) || door == Door::kEmbeddings ? "POST" : "GET";
}

bool IsGeneration(Door door) {
  switch (door) {
    case Door::kChat:
    case Door::kCompletions:
    case Door::kResponses:
    case Door::kMessages:
    case Door::kCountTokens:
      return true;
    default:
      return false;
  }
}

const char* EndpointLabel(Door door) {
  switch (door) {
    case Door::kChat:
      return "chat_completions";
    case Door::kCompletions:
      return "completions";
    case Door::kResponses:
      return "responses";
    case Door::kMessages:
    case Door::kCountTokens:
      return "messages";
    case Door::kModels:
    case Door::kModel:
      return "models";
    case Door::kUnknown:
    case Door::kHint:
    case Door::kEmbeddings:
      break;
  }
  return "other";
}

bool IsCleanId(std::string_view text) {
  return !text.empty() && text.size() <= kIdBytesMax &&
         std::all_of(text.begin(), text.end(), [](unsigned char c) {
           return absl::ascii_isalnum(c) || c == '.' || c == '_' || c == '-';
         });
}

std::string Printable(std::string_view text, size_t bytes_max) {
  std::string out(text.substr(0, bytes_max));
  for (char& c : out) {
    if (!absl::ascii_isprint(static_cast<unsigned char>(c))) c = '?';
  }
  return text.size() > bytes_max ? out + "..." : out;
}

}  // namespace expertmesh::gateway

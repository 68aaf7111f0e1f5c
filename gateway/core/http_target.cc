#include "gateway/core/http_target.h"

#include <algorithm>

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
  if (path.starts_with("/v1/")) path.remove_prefix(3);
  if (path == "/chat/completions") out.door = Door::kChat;
  if (path == "/completions") out.door = Door::kCompletions;
  if (path == "/models") out.door = Door::kModels;
  if (path.starts_with(kModelsPrefix) && path.size() > kModelsPrefix.size()) {
    out.door = Door::kModel;
    out.model = PercentDecoded(path.substr(kModelsPrefix.size()));
  }
  return out;
}

const char* MethodOf(Door door) {
  return door == Door::kChat || door == Door::kCompletions ? "POST" : "GET";
}

const char* EndpointLabel(Door door) {
  switch (door) {
    case Door::kChat:
      return "chat_completions";
    case Door::kCompletions:
      return "completions";
    case Door::kModels:
    case Door::kModel:
      return "models";
    case Door::kUnknown:
    case Door::kHint:
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

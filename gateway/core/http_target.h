// Which door a request target means, and text of a client that goes into ids and messages. Pure.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace expertmesh::gateway {

enum class Door {
  kUnknown,
  kHint,
  kChat,
  kCompletions,
  kResponses,
  kMessages,
  kCountTokens,
  kEmbeddings,
  kModels,
  kModel
};

struct HttpTarget {
  Door door = Door::kUnknown;
  std::string path = {};   // printable ASCII, shortened: for messages
  std::string model = {};  // kModel: the id, percent-decoded
};

/// "/v1/chat/completions?x=1" → kChat. Every path is also there without /v1 and under /beta, the
/// messages also under /anthropic. Any bytes are fine.
HttpTarget ParseTarget(std::string_view target);

/// The only method of a door (kModels and kModel also answer HEAD): "POST" or "GET".
const char* MethodOf(Door door);
/// The label of metrics: "chat_completions", "completions", "responses", "messages", "models" or
/// "other".
const char* EndpointLabel(Door door);
/// Whether the door takes a prompt.
bool IsGeneration(Door door);

/// 1 to 128 of A-Z a-z 0-9 . _ - : may travel as x-request-id (docs/protocol.md §4).
bool IsCleanId(std::string_view text);
/// Other bytes than printable ASCII become '?'; longer texts end in "...".
std::string Printable(std::string_view text, size_t bytes_max);

}  // namespace expertmesh::gateway

// Questions to a gateway through /v1/chat/completions, as any client asks.
#pragma once

#include <cstdint>
#include <iosfwd>
#include <span>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "services/http/client.h"

namespace expertmesh::cli {

struct ChatAskOptions {
  std::string url = {};    // http://HOST:PORT, with or without /v1
  std::string model = {};  // "" = the one that is served
  uint32_t max_tokens = 64;
  unsigned concurrency = 8;
  uint32_t timeout_s = 120;
};

/// Greedy answers [prompts], each to a conversation of one message. The first that fails ends it:
/// a share of questions that were not all answered would be none.
class ChatAsker {
 public:
  /// Finds out the model. Errors name the address.
  static absl::StatusOr<ChatAsker> Open(const ChatAskOptions& options);

  /// Progress "what: n of m" on err.
  absl::StatusOr<std::vector<std::string>> Ask(std::span<const std::string> prompts,
                                               const std::string& what, std::ostream& err) const;
  const std::string& model() const { return options_.model; }

 private:
  ChatAskOptions options_;
  http::Url url_;
};

}  // namespace expertmesh::cli

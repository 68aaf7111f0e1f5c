// Bodies and SSE events of /anthropic/v1/messages. Pure.
#pragma once

#include <boost/json/object.hpp>
#include <cstdint>
#include <string>
#include <vector>

#include "gateway/core/answer_format.h"

namespace expertmesh::gateway {

class MessagesFormat final : public AnswerFormat {
 public:
  /// `id`: "msg_…".
  MessagesFormat(std::string id, std::string model)
      : id_(std::move(id)), model_(std::move(model)) {}

  std::string Begin(const Usage& usage) override;
  std::string Delta(uint32_t choice, const ChoiceParts& parts, size_t first_call) override;
  std::string EndChoice(uint32_t choice, const WholeChoice& end, const Usage& usage) override;
  std::string End(const Usage& usage) override;
  std::string Fail(const ApiError& error) override;
  std::string Whole(const std::vector<WholeChoice>& choices, const Usage& usage) override;

 private:
  enum class Block { kNone, kThinking, kText };
  boost::json::object Message(const Usage& usage) const;
  std::string Open(Block block);
  std::string Close();

  const std::string id_;
  const std::string model_;
  Block open_ = Block::kNone;
  uint32_t index_ = 0;  // of the open block, or of the next
};

/// The error object of this dialect.
std::string MessagesErrorBody(const ApiError& error);
/// The answer of count_tokens.
std::string TokenCountBody(size_t tokens);

}  // namespace expertmesh::gateway

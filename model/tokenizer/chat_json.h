// Conversations as JSON in the OpenAI form, with the fields that DeepSeek's encoders add.
#pragma once

#include <boost/json/value.hpp>
#include <vector>

#include "absl/status/statusor.h"
#include "model/tokenizer/chat_message.h"

namespace expertmesh::model {

/// A list of messages: role, content (a string, null, or parts of type text), reasoning_content,
/// tool_calls, tool_call_id, tools, response_format, task. kInvalidArgument naming
/// messages[i].FIELD. Roles are checked by EncodeChat.
absl::StatusOr<std::vector<ChatMessage>> ChatMessagesFromJson(const boost::json::value& list);

}  // namespace expertmesh::model

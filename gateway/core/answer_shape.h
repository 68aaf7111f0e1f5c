// Request fields that fix the form of an answer: response_format and its twins, tool_choice in its
// three dialects. Inner header of the request parsers. Pure.
#pragma once

#include <boost/json.hpp>
#include <string_view>

#include "gateway/core/request_fields.h"

namespace expertmesh::gateway {

/// {"type": "text" | "json_object" | "json_schema", …}; `field` is its name for errors. The schema
/// is in "json_schema" of the chat API, in the object itself elsewhere.
Failure TakeAnswerFormat(std::string_view field, const boost::json::value& v, ApiRequest& request);

/// "none", "auto", "required", or one function by {"type": "function", …} (chat, responses).
Failure TakeToolChoiceField(const boost::json::value& v, ApiRequest& request);
/// {"type": "none" | "auto" | "any" | "tool"} of Anthropic's API.
Failure TakeToolChoiceObject(const boost::json::value& v, ApiRequest& request);

/// Whether fields that were fine alone go together; once all are taken.
Failure CheckAnswerShape(const ApiRequest& request);

}  // namespace expertmesh::gateway

// The fields of a request body, one rule each: honoured, ignored, or refused unless neutral. Inner
// header of core/api_request.cc. Pure.
#pragma once

#include <boost/json.hpp>
#include <optional>
#include <string>
#include <string_view>

#include "gateway/core/api_request.h"

namespace expertmesh::gateway {

/// What is wrong with a body; nothing if it is fine.
using Failure = std::optional<ApiError>;

/// The member, or null where it is absent or a JSON null.
const boost::json::value* FindField(const boost::json::object& object, std::string_view key);
/// The string "type" of an object, else "".
std::string_view TypeOf(const boost::json::value& value);

inline std::string Text(const boost::json::string& s) { return {s.data(), s.size()}; }

/// Takes every field of a chat body but "messages", of a completion body but "prompt".
Failure TakeFields(const boost::json::object& body, ApiRequest& request);

/// Fields of a message that no model here takes; `at` is "messages[2]".
Failure RefuseMessageExtras(const boost::json::object& message, const std::string& at);

}  // namespace expertmesh::gateway

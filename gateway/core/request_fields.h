// The fields of request bodies, one rule each: honoured, ignored, or refused unless neutral. Inner
// header of the request parsers. Pure.
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
inline std::string_view View(const boost::json::string& s) { return {s.data(), s.size()}; }

/// Parses a body into an object: UTF-8, bounded depth and number of values.
Failure ParseBody(std::string_view body, boost::json::storage_ptr storage, boost::json::value& out);

// One value each, checked; the error names `field`.
Failure TakeFloat(std::string_view field, const boost::json::value& v, double low, double high,
                  float& out);
Failure TakeCount(std::string_view field, const boost::json::value& v, int64_t low, int64_t high,
                  uint32_t& out);
Failure TakeBool(std::string_view field, const boost::json::value& v, bool& out);
Failure TakeString(std::string_view field, const boost::json::value& v, std::string& out);
Failure TakeModel(const boost::json::object& body, ApiRequest& request);
Failure TakeEffortName(std::string_view field, const boost::json::value& v, ApiRequest& request);
Failure TakeStopString(const std::string& field, const boost::json::value& v, ApiRequest& request);
/// A function that may be called, with the keys name, description and `parameters`, into
/// request.tools.
Failure TakeFunction(const std::string& at, const boost::json::object& function,
                     const char* parameters, ApiRequest& request);
/// 400 for a field that is not in the request's list, and for one that this version cannot honour.
ApiError UnknownField(std::string_view field);
ApiError UnsupportedField(std::string_view field, std::string_view only);

inline constexpr int64_t kTokensMax = 1 << 30;
inline constexpr size_t kMessagesMax = 10000;
inline constexpr size_t kToolsMax = 128;
inline constexpr size_t kStopsMax = 16;

/// Takes every field of a chat body but "messages", of a completion body but "prompt".
Failure TakeFields(const boost::json::object& body, ApiRequest& request);

/// Fields of a message that no model here takes; `at` is "messages[2]".
Failure RefuseMessageExtras(const boost::json::object& message, const std::string& at);

}  // namespace expertmesh::gateway

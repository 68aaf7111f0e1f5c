// JSON as Python's json.dumps(value, ensure_ascii=False) writes it, which is what published chat
// encoders put into prompts: ", " and ": " between parts, characters outside ASCII as they are,
// numbers as Python prints them.
#pragma once

#include <boost/json/value.hpp>
#include <optional>
#include <string>
#include <string_view>

namespace expertmesh::model {

std::string PythonJson(const boost::json::value& value);

/// The text again, in that form; nullopt if it is not JSON.
std::optional<boost::json::value> ParseJson(std::string_view text);

}  // namespace expertmesh::model

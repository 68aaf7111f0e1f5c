// Bodies as JSON, bounded before they are parsed.
#include <boost/json.hpp>
#include <utility>

#include "absl/strings/str_cat.h"
#include "gateway/core/request_fields.h"
#include "model/tokenizer/exact_json.h"
#include "model/tokenizer/utf8.h"

namespace expertmesh::gateway {
namespace {

namespace json = boost::json;

constexpr size_t kDepthMax = 32;
constexpr size_t kValuesMax = size_t{2} << 20;  // JSON values of a body: bounds what parsing takes

// At most one more than the values of the text, without parsing it: separators outside of strings.
size_t CountValues(std::string_view text) {
  size_t count = 1;
  bool in_string = false;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (in_string) {
      if (c == '\\') ++i;
      if (c == '"') in_string = false;
    } else if (c == '"') {
      in_string = true;
    } else if (c == ',' || c == ':' || c == '[' || c == '{') {
      ++count;
    }
  }
  return count;
}

Failure BadJson(std::string what) {
  return ClientError(400, "invalid_json", absl::StrCat("the body is not usable JSON: ", what));
}

}  // namespace

Failure ParseBody(std::string_view body, json::storage_ptr storage, json::value& out) {
  if (const auto at = model::FindInvalidUtf8(body)) {
    return ClientError(400, "invalid_utf8", absl::StrCat("the body is not UTF-8 at byte ", *at));
  }
  if (CountValues(body) > kValuesMax) {
    return BadJson(absl::StrCat("it has more than ", kValuesMax, " values"));
  }
  json::parse_options options;
  options.max_depth = kDepthMax;
  boost::system::error_code error;
  const size_t read = model::ParseExactJson(body, options, std::move(storage), out, error);
  if (error) return BadJson(absl::StrCat(error.message(), " at byte ", read));
  if (!out.is_object()) return BadJson("it must be an object");
  return std::nullopt;
}

}  // namespace expertmesh::gateway

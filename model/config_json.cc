#include "model/config_json.h"

#include <boost/json/parser.hpp>
#include <exception>

#include "absl/strings/str_cat.h"

namespace expertmesh::model {

absl::StatusOr<boost::json::value> ParseJson(std::string_view text, base::Reason reason) {
  boost::json::parse_options options;
  options.max_depth = kJsonDepthMax;
  boost::json::parser parser({}, options);
  try {  // out of memory inside the parser is an exception
    boost::json::error_code error;
    const size_t read = parser.write(text.data(), text.size(), error);
    if (error) {
      return base::Error(reason,
                         absl::StrCat("not valid JSON near byte ", read, ": ", error.message()));
    }
    return parser.release();
  } catch (const std::exception& error) {
    return base::Error(reason, absl::StrCat("not valid JSON: ", error.what()));
  }
}

}  // namespace expertmesh::model

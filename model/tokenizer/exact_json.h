// JSON with every number as the nearest double: Boost's own parser may be a unit in the last place
// off, which moves bounds of schemas and numbers in prompts.
#pragma once

#include <boost/json/parse_options.hpp>
#include <boost/json/storage_ptr.hpp>
#include <boost/json/value.hpp>
#include <boost/system/error_code.hpp>
#include <string_view>

namespace expertmesh::model {

/// One JSON value and nothing behind it but white space, into `out`. Returns the bytes read, all of
/// them unless `error` is set. Never aborts on any bytes.
size_t ParseExactJson(std::string_view text, const boost::json::parse_options& options,
                      boost::json::storage_ptr storage, boost::json::value& out,
                      boost::system::error_code& error);

}  // namespace expertmesh::model

#include "model/tokenizer/exact_json.h"

#include <boost/json/basic_parser_impl.hpp>
#include <boost/json/value_stack.hpp>
#include <charconv>
#include <cstdint>
#include <utility>

namespace expertmesh::model {
namespace {

namespace json = boost::json;
using boost::system::error_code;
using json::string_view;

// Puts values on Boost's stack, doubles by std::from_chars.
struct Handler {
  static constexpr size_t max_object_size = json::object::max_size();
  static constexpr size_t max_array_size = json::array::max_size();
  static constexpr size_t max_key_size = json::string::max_size();
  static constexpr size_t max_string_size = json::string::max_size();

  explicit Handler(json::storage_ptr storage) { stack.reset(std::move(storage)); }

  bool on_document_begin(error_code&) { return true; }
  bool on_document_end(error_code&) { return true; }
  bool on_object_begin(error_code&) { return true; }
  bool on_object_end(size_t n, error_code&) {
    stack.push_object(n);
    return true;
  }
  bool on_array_begin(error_code&) { return true; }
  bool on_array_end(size_t n, error_code&) {
    stack.push_array(n);
    return true;
  }
  bool on_key_part(string_view s, size_t, error_code&) {
    stack.push_chars(s);
    return true;
  }
  bool on_key(string_view s, size_t, error_code&) {
    stack.push_key(s);
    return true;
  }
  bool on_string_part(string_view s, size_t, error_code&) {
    stack.push_chars(s);
    return true;
  }
  bool on_string(string_view s, size_t, error_code&) {
    stack.push_string(s);
    return true;
  }
  bool on_number_part(string_view, error_code&) { return true; }
  bool on_int64(int64_t i, string_view, error_code&) {
    stack.push_int64(i);
    return true;
  }
  bool on_uint64(uint64_t u, string_view, error_code&) {
    stack.push_uint64(u);
    return true;
  }
  bool on_double(double d, string_view s, error_code&) {
    double exact = d;
    const auto read = std::from_chars(s.data(), s.data() + s.size(), exact);
    const bool whole = read.ec == std::errc() && read.ptr == s.data() + s.size();
    stack.push_double(whole ? exact : d);  // out of range: as Boost says
    return true;
  }
  bool on_bool(bool b, error_code&) {
    stack.push_bool(b);
    return true;
  }
  bool on_null(error_code&) {
    stack.push_null();
    return true;
  }
  bool on_comment_part(string_view, error_code&) { return true; }
  bool on_comment(string_view, error_code&) { return true; }

  json::value_stack stack;
};

}  // namespace

size_t ParseExactJson(std::string_view text, const json::parse_options& options,
                      json::storage_ptr storage, json::value& out, error_code& error) {
  json::basic_parser<Handler> parser(options, std::move(storage));
  const size_t read = parser.write_some(false, text.data(), text.size(), error);
  if (!error && read < text.size()) error = json::error::extra_data;
  if (!error) out = parser.handler().stack.release();
  return read;
}

}  // namespace expertmesh::model

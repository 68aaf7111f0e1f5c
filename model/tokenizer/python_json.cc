#include "model/tokenizer/python_json.h"

#include <boost/system/error_code.hpp>
#include <charconv>
#include <cmath>
#include <cstdint>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "model/tokenizer/exact_json.h"

namespace expertmesh::model {
namespace {

namespace json = boost::json;

void WriteString(std::string_view text, std::string& out) {
  out.push_back('"');
  for (const char c : text) {
    switch (c) {
      case '"':
        out += "\\\"";
        break;
      case '\\':
        out += "\\\\";
        break;
      case '\n':
        out += "\\n";
        break;
      case '\r':
        out += "\\r";
        break;
      case '\t':
        out += "\\t";
        break;
      case '\b':
        out += "\\b";
        break;
      case '\f':
        out += "\\f";
        break;
      default:
        if (static_cast<uint8_t>(c) < 0x20) {
          absl::StrAppendFormat(&out, "\\u%04x", static_cast<unsigned>(c));
        } else {
          out.push_back(c);
        }
    }
  }
  out.push_back('"');
}

// The shortest digits that read back as the same number; exponents from 1e16 and below 1e-4.
void WriteDouble(double value, std::string& out) {
  if (!std::isfinite(value)) {  // of numbers like 1e999
    out += value < 0 ? "-Infinity" : "Infinity";
    return;
  }
  char buffer[40];
  const auto done =
      std::to_chars(buffer, buffer + sizeof(buffer), value, std::chars_format::scientific);
  std::string_view text(buffer, static_cast<size_t>(done.ptr - buffer));
  const size_t e = text.find('e');
  int exponent = 0;
  const char* digits = text.data() + e + 1 + (text[e + 1] == '+' ? 1 : 0);
  std::from_chars(digits, text.data() + text.size(), exponent);
  if (exponent < -4 || exponent >= 16) {
    out += text;
    return;
  }
  char fixed[40];
  const auto end = std::to_chars(fixed, fixed + sizeof(fixed), value, std::chars_format::fixed).ptr;
  const std::string_view plain(fixed, static_cast<size_t>(end - fixed));
  out += plain;
  if (plain.find('.') == std::string_view::npos) out += ".0";
}

void Write(const json::value& value, std::string& out) {
  if (const json::object* object = value.if_object()) {
    out.push_back('{');
    for (const json::key_value_pair& entry : *object) {
      if (&entry != &*object->begin()) out += ", ";
      WriteString({entry.key().data(), entry.key().size()}, out);
      out += ": ";
      Write(entry.value(), out);
    }
    out.push_back('}');
  } else if (const json::array* array = value.if_array()) {
    out.push_back('[');
    for (const json::value& entry : *array) {
      if (&entry != &*array->begin()) out += ", ";
      Write(entry, out);
    }
    out.push_back(']');
  } else if (const json::string* text = value.if_string()) {
    WriteString({text->data(), text->size()}, out);
  } else if (value.is_double()) {
    WriteDouble(value.get_double(), out);
  } else if (value.is_int64()) {
    absl::StrAppend(&out, value.get_int64());
  } else if (value.is_uint64()) {
    absl::StrAppend(&out, value.get_uint64());
  } else {
    out += value.is_null() ? "null" : value.get_bool() ? "true" : "false";
  }
}

}  // namespace

std::string PythonJson(const json::value& value) {
  std::string out;
  Write(value, out);
  return out;
}

std::optional<json::value> ParseJson(std::string_view text) {
  boost::system::error_code error;
  json::value value;
  ParseExactJson(text, {}, {}, value, error);
  if (error) return std::nullopt;
  return value;
}

}  // namespace expertmesh::model

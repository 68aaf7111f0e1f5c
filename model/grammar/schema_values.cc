// Single keywords of a schema: types, values, counts, bounds of numbers.
#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "model/grammar/schema_parts.h"
#include "services/base/status.h"

namespace expertmesh::model::schema {
namespace {

constexpr uint32_t kCountMax = 1'000'000;
constexpr int kFractionDigits = 6;  // of numbers with bounds
constexpr int kFractionDigitsMax = 9;

struct TypeName {
  std::string_view name;
  uint32_t type;
};
constexpr std::array<TypeName, 7> kTypeNames = {{{"null", kNull},
                                                 {"boolean", kBoolean},
                                                 {"object", kObject},
                                                 {"array", kArray},
                                                 {"string", kString},
                                                 {"number", kNumber},
                                                 {"integer", kInteger}}};

// Keywords that constrain one type only.
constexpr std::array<TypeName, 18> kTypeKeywords = {{{"properties", kObject},
                                                     {"required", kObject},
                                                     {"additionalProperties", kObject},
                                                     {"minProperties", kObject},
                                                     {"maxProperties", kObject},
                                                     {"items", kArray},
                                                     {"prefixItems", kArray},
                                                     {"minItems", kArray},
                                                     {"maxItems", kArray},
                                                     {"uniqueItems", kArray},
                                                     {"minLength", kString},
                                                     {"maxLength", kString},
                                                     {"pattern", kString},
                                                     {"format", kString},
                                                     {"minimum", kNumber},
                                                     {"maximum", kNumber},
                                                     {"exclusiveMinimum", kNumber},
                                                     {"exclusiveMaximum", kNumber}}};

uint32_t Tidy(uint32_t types) {
  return (types & kNumber) != 0 ? types & ~static_cast<uint32_t>(kInteger) : types;
}

absl::StatusOr<uint32_t> TypeNamed(const json::value& name, const Place& place) {
  if (name.is_string()) {
    for (const TypeName& known : kTypeNames) {
      if (std::string_view(name.as_string().data(), name.as_string().size()) == known.name) {
        return known.type;
      }
    }
  }
  return Refused(place, "type", "names no JSON type");
}

// A bound in units of 10^-digits, rounded inwards; `strict` leaves the bound itself out.
struct Scaled {
  int64_t value;
  bool exact;
};
Scaled Scale(const json::value& bound, int digits) {
  constexpr auto kLimit = static_cast<long double>(NumberRange::kLimit);
  const long double number = bound.is_int64()    ? static_cast<long double>(bound.as_int64())
                             : bound.is_uint64() ? static_cast<long double>(bound.as_uint64())
                                                 : static_cast<long double>(bound.as_double());
  long double unit = 1;
  for (int i = 0; i < digits; ++i) unit *= 10;
  const long double scaled = std::clamp(number * unit, -kLimit, kLimit);
  // A decimal bound such as 0.1 is meant as it is written, and its double rounds to that.
  const long double nearest = std::round(scaled);
  const bool exact = static_cast<double>(nearest / unit) == static_cast<double>(number);
  return {static_cast<int64_t>(exact ? nearest : std::floor(scaled)), exact};
}

absl::Status CheckNumber(const json::value& v, std::string_view keyword, const Place& place) {
  if (v.is_number() && (!v.is_double() || std::isfinite(v.as_double()))) return absl::OkStatus();
  return Refused(place, keyword, "must be a number");
}

}  // namespace

Place Place::At(std::string_view key) const {
  std::string escaped;
  for (const char c : key) {
    if (c == '~') {
      escaped += "~0";
    } else if (c == '/') {
      escaped += "~1";
    } else {
      escaped += c;
    }
  }
  return {absl::StrCat(pointer, "/", escaped)};
}

absl::Status Refused(const Place& place, std::string_view keyword, std::string_view why) {
  return base::Error(
      base::Reason::kSchemaUnsupported,
      absl::StrCat(std::string(keyword), " at \"#", place.pointer, "\" ", std::string(why)));
}

bool IsAnnotation(std::string_view keyword) {
  constexpr std::array<std::string_view, 16> kAnnotations = {
      "title",       "description", "default",  "examples", "example",  "deprecated",
      "readOnly",    "writeOnly",   "$schema",  "$id",      "$comment", "$anchor",
      "definitions", "$defs",       "nullable", "strict"};
  return std::find(kAnnotations.begin(), kAnnotations.end(), keyword) != kAnnotations.end() ||
         keyword.starts_with("x-");
}

const json::value* Find(const json::object& schema, std::string_view keyword) {
  const json::value* value = schema.if_contains(json::string_view(keyword.data(), keyword.size()));
  return value == nullptr || (value->is_null() && keyword != "const") ? nullptr : value;
}

absl::StatusOr<std::optional<uint32_t>> NamedTypes(const json::object& schema, const Place& place) {
  const json::value* type = Find(schema, "type");
  if (type == nullptr) return std::nullopt;
  if (!type->is_array()) {
    EM_ASSIGN_OR_RETURN(const uint32_t named, TypeNamed(*type, place));
    return named;
  }
  uint32_t types = 0;
  for (const json::value& name : type->as_array()) {
    EM_ASSIGN_OR_RETURN(const uint32_t named, TypeNamed(name, place));
    types |= named;
  }
  return Tidy(types);
}

absl::StatusOr<uint32_t> TypesOf(const json::object& schema, const Place& place) {
  EM_ASSIGN_OR_RETURN(const auto named, NamedTypes(schema, place));
  if (named) return *named;
  uint32_t types = 0;
  if (Find(schema, "multipleOf") != nullptr) types = kNumber;
  for (const TypeName& keyword : kTypeKeywords) {
    if (Find(schema, keyword.name) != nullptr) types |= keyword.type;
  }
  return types == 0 ? kAnyType : types;
}

uint32_t TypeOfValue(const json::value& value) {
  switch (value.kind()) {
    case json::kind::null:
      return kNull;
    case json::kind::bool_:
      return kBoolean;
    case json::kind::object:
      return kObject;
    case json::kind::array:
      return kArray;
    case json::kind::string:
      return kString;
    case json::kind::double_:
      return std::nearbyint(value.as_double()) == value.as_double() ? kInteger : kNumber;
    default:
      return kInteger;
  }
}

uint32_t CommonTypes(uint32_t a, uint32_t b) {
  uint32_t common = a & b;
  const uint32_t numbers = kNumber | kInteger;
  if ((a & numbers) != 0 && (b & numbers) != 0 && (common & numbers) == 0) common |= kInteger;
  return common;
}

absl::StatusOr<std::optional<json::array>> ValuesOf(const json::object& schema,
                                                    const Place& place) {
  const json::value* list = Find(schema, "enum");
  const json::value* constant = Find(schema, "const");
  if (list == nullptr && constant == nullptr) return std::nullopt;
  json::array values;
  if (list != nullptr && !list->is_array()) return Refused(place, "enum", "must be an array");
  if (list != nullptr) {
    values = list->as_array();
  } else {
    values.push_back(*constant);
  }
  EM_ASSIGN_OR_RETURN(const auto types, NamedTypes(schema, place));
  json::array kept;
  for (const json::value& value : values) {
    if (types && CommonTypes(*types, TypeOfValue(value)) == 0) continue;
    if (list != nullptr && constant != nullptr && value != *constant) continue;
    kept.push_back(value);
  }
  return kept;
}

absl::StatusOr<uint32_t> CountOf(const json::object& schema, std::string_view keyword,
                                 uint32_t fallback, const Place& place) {
  const json::value* v = Find(schema, keyword);
  if (v == nullptr) return fallback;
  double count = -1;
  if (v->is_number()) count = v->to_number<double>();
  if (count < 0 || std::nearbyint(count) != count) {
    return Refused(place, keyword, "must be a whole number from 0 up");
  }
  if (count <= kCountMax) return static_cast<uint32_t>(count);
  if (fallback == kNoLimit) return kNoLimit;  // an upper bound that is never reached
  return Refused(place, keyword, absl::StrCat("may be at most ", kCountMax));
}

bool BoundsNumbers(const json::object& schema) {
  for (const std::string_view keyword :
       {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"}) {
    if (Find(schema, keyword) != nullptr) return true;
  }
  return false;
}

absl::StatusOr<NumberRange> RangeOf(const json::object& schema, bool integer, const Place& place) {
  NumberRange range;
  if (const json::value* multiple = Find(schema, "multipleOf")) {
    EM_RETURN_IF_ERROR(CheckNumber(*multiple, "multipleOf", place));
    const double step = multiple->to_number<double>();
    if (step < 1 || std::nearbyint(step) != step || step > 1e15) {
      return Refused(place, "multipleOf", "must be a whole number from 1 to 10^15 here");
    }
    range.multiple = static_cast<int64_t>(step);
  }
  double largest = 0;
  for (const std::string_view keyword :
       {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"}) {
    const json::value* bound = Find(schema, keyword);
    if (bound == nullptr) continue;
    EM_RETURN_IF_ERROR(CheckNumber(*bound, keyword, place));
    largest = std::max(largest, std::abs(bound->to_number<double>()));
  }
  if (!integer && range.multiple == 0) {
    range.fraction_digits = largest < 1 ? kFractionDigitsMax : kFractionDigits;
    for (double l = largest; l > 1e8 && range.fraction_digits > 0; l /= 10) --range.fraction_digits;
  }
  const int digits = range.fraction_digits;
  std::optional<int64_t> low;
  std::optional<int64_t> high;
  const auto raise = [&](int64_t bound) { low = std::max(low.value_or(bound), bound); };
  const auto lower = [&](int64_t bound) { high = std::min(high.value_or(bound), bound); };
  if (const json::value* v = Find(schema, "minimum")) {
    const Scaled s = Scale(*v, digits);
    raise(s.value + (s.exact ? 0 : 1));
  }
  if (const json::value* v = Find(schema, "exclusiveMinimum")) raise(Scale(*v, digits).value + 1);
  if (const json::value* v = Find(schema, "maximum")) lower(Scale(*v, digits).value);
  if (const json::value* v = Find(schema, "exclusiveMaximum")) {
    const Scaled s = Scale(*v, digits);
    lower(s.value - (s.exact ? 1 : 0));
  }
  // 15 digits survive a double; integers may have more, if the bounds say so.
  constexpr int64_t kDefault = 1'000'000'000'000'000;
  range.low = low.value_or(high.value_or(0) < -kDefault ? -NumberRange::kLimit : -kDefault);
  range.high = high.value_or(low.value_or(0) > kDefault ? NumberRange::kLimit : kDefault);
  range.low = std::clamp(range.low, -NumberRange::kLimit, NumberRange::kLimit);
  range.high = std::clamp(range.high, -NumberRange::kLimit, NumberRange::kLimit);
  return range;
}

}  // namespace expertmesh::model::schema

// Inner header of the schema compiler: schemas as JSON, put together and taken apart.
#pragma once

#include <boost/json.hpp>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "model/grammar/grammar.h"

namespace expertmesh::model::schema {

namespace json = boost::json;

/// A schema and where it stands, as a JSON pointer, for errors.
struct Place {
  std::string pointer;
  Place At(std::string_view key) const;
};
absl::Status Refused(const Place& place, std::string_view keyword, std::string_view why);

/// The six types and "integer", in a fixed order.
enum Type : uint32_t {
  kNull = 1,
  kBoolean = 2,
  kObject = 4,
  kArray = 8,
  kString = 16,
  kNumber = 32,   // integers and others
  kInteger = 64,  // integers only; never beside kNumber
};
inline constexpr uint32_t kAnyType = kNull | kBoolean | kObject | kArray | kString | kNumber;

/// Keywords that say nothing about values.
bool IsAnnotation(std::string_view keyword);
/// The member; null if it is absent. A JSON null counts as absent but for const.
const json::value* Find(const json::object& schema, std::string_view keyword);

/// Types that `type` names; nullopt if it is absent.
absl::StatusOr<std::optional<uint32_t>> NamedTypes(const json::object& schema, const Place& place);
/// Types that the schema is about: those named, else those its keywords are for, else any.
absl::StatusOr<uint32_t> TypesOf(const json::object& schema, const Place& place);
/// The type of a value; whole numbers are kInteger.
uint32_t TypeOfValue(const json::value& value);
/// Types that both name, numbers and integers meeting in integers.
uint32_t CommonTypes(uint32_t a, uint32_t b);

/// The values of enum or const, those of another type left out; nullopt without these keywords.
absl::StatusOr<std::optional<json::array>> ValuesOf(const json::object& schema, const Place& place);

/// A count such as minItems; `fallback` if absent.
absl::StatusOr<uint32_t> CountOf(const json::object& schema, std::string_view keyword,
                                 uint32_t fallback, const Place& place);

/// The schema that `$ref` names.
using Resolver = std::function<absl::StatusOr<json::value>(std::string_view ref, const Place&)>;

/// One schema whose instances are those of both. `resolve` looks up references that stand beside
/// other keywords; `depth` guards against those that never end.
absl::StatusOr<json::value> Merge(const json::value& a, const json::value& b, const Place& place,
                                  const Resolver& resolve, int depth);

/// Whether no value can satisfy both branches of a oneOf, as far as types, enums and properties
/// that tell them apart show.
absl::StatusOr<bool> Apart(const json::value& a, const json::value& b, const Place& place,
                           const Resolver& resolve, int depth);

/// A number between the bounds of a schema, or an integer.
absl::StatusOr<NumberRange> RangeOf(const json::object& schema, bool integer, const Place& place);
/// Whether the schema bounds numbers at all.
bool BoundsNumbers(const json::object& schema);

/// The pattern of a format; kSchemaUnsupported for unknown ones.
absl::StatusOr<std::string_view> PatternOfFormat(std::string_view format, const Place& place);

}  // namespace expertmesh::model::schema

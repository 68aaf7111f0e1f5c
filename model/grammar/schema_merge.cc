// Schemas that must hold together (allOf, and keywords beside anyOf, oneOf and $ref), as one.
#include <algorithm>

#include "absl/strings/str_cat.h"
#include "model/grammar/schema_parts.h"
#include "services/base/status.h"

namespace expertmesh::model::schema {
namespace {

constexpr int kDepthMax = 32;

std::string_view View(const json::string& s) { return {s.data(), s.size()}; }

json::value Both(const json::value& a, const json::value& b) {
  if (a == b) return a;
  return json::object{{"allOf", json::array{a, b}}};
}

absl::Status TooDeep(const Place& place) {
  return Refused(place, "allOf", "leads to more and more schemas that must hold together");
}

// Without allOf and without a $ref at the top.
absl::StatusOr<json::value> Flat(const json::value& schema, const Place& place,
                                 const Resolver& resolve, int depth) {
  if (depth > kDepthMax) return TooDeep(place);
  if (!schema.is_object()) return schema;
  json::object rest = schema.as_object();
  json::array parts;
  if (const json::value* all = Find(rest, "allOf")) {
    if (!all->is_array()) return Refused(place, "allOf", "must be an array");
    parts = all->as_array();
    rest.erase("allOf");
  }
  if (const json::value* ref = Find(rest, "$ref")) {
    if (!ref->is_string()) return Refused(place, "$ref", "must be a string");
    EM_ASSIGN_OR_RETURN(json::value target, resolve(View(ref->as_string()), place));
    parts.insert(parts.begin(), std::move(target));
    rest.erase("$ref");
  }
  json::value merged = std::move(rest);
  for (const json::value& part : parts) {
    EM_ASSIGN_OR_RETURN(merged, Merge(merged, part, place, resolve, depth + 1));
  }
  return merged;
}

absl::StatusOr<json::value> CommonType(const json::object& a, const json::object& b,
                                       const Place& place) {
  EM_ASSIGN_OR_RETURN(const auto first, NamedTypes(a, place));
  EM_ASSIGN_OR_RETURN(const auto second, NamedTypes(b, place));
  const uint32_t common = CommonTypes(first.value_or(kAnyType), second.value_or(kAnyType));
  json::array names;
  for (const auto& [name, type] : {std::pair{"null", kNull},
                                   {"boolean", kBoolean},
                                   {"object", kObject},
                                   {"array", kArray},
                                   {"string", kString},
                                   {"number", kNumber},
                                   {"integer", kInteger}}) {
    if ((common & type) != 0) names.emplace_back(name);
  }
  return names;
}

json::array Union(const json::value& a, const json::value& b) {
  json::array all = a.is_array() ? a.as_array() : json::array();
  if (!b.is_array()) return all;
  for (const json::value& value : b.as_array()) {
    if (std::find(all.begin(), all.end(), value) == all.end()) all.push_back(value);
  }
  return all;
}

json::array Intersection(const json::value& a, const json::value& b) {
  json::array common;
  if (!a.is_array() || !b.is_array()) return common;
  for (const json::value& value : a.as_array()) {
    const json::array& other = b.as_array();
    if (std::find(other.begin(), other.end(), value) != other.end()) common.push_back(value);
  }
  return common;
}

// The tighter of two bounds; `upper`: the smaller.
json::value Tighter(const json::value& a, const json::value& b, bool upper) {
  if (!a.is_number() || !b.is_number()) return a;
  const bool first = a.to_number<double>() < b.to_number<double>();
  return first == upper ? a : b;
}

// The properties of both; what one does not list must satisfy its additionalProperties.
void MergeProperties(const json::object& a, const json::object& b, json::object& merged) {
  const json::object none;
  const auto listed = [&](const json::object& schema) -> const json::object& {
    const json::value* v = Find(schema, "properties");
    return v != nullptr && v->is_object() ? v->as_object() : none;
  };
  json::object all;
  const auto take = [&](const json::object& from, const json::object& other) {
    const json::value* additional = Find(other, "additionalProperties");
    for (const auto& [name, value] : listed(from)) {
      if (all.contains(name)) continue;
      if (const json::value* twin = listed(other).if_contains(name)) {
        all[name] = Both(value, *twin);
      } else {
        all[name] = additional == nullptr ? value : Both(value, *additional);
      }
    }
  };
  take(a, b);
  take(b, a);
  if (!all.empty()) merged["properties"] = all;
}

absl::Status Combine(std::string_view key, const json::value& a, const json::value& b,
                     const Place& place, json::value& out) {
  if (key == "required") {
    out = Union(a, b);
  } else if (key == "enum") {
    out = Intersection(a, b);
  } else if (key == "items" || key == "additionalProperties") {
    out = Both(a, b);
  } else if (key == "minimum" || key == "exclusiveMinimum" || key == "minLength" ||
             key == "minItems") {
    out = Tighter(a, b, false);
  } else if (key == "maximum" || key == "exclusiveMaximum" || key == "maxLength" ||
             key == "maxItems") {
    out = Tighter(a, b, true);
  } else if (a != b) {
    return Refused(place, key, "stands twice with different values where both must hold");
  }
  return absl::OkStatus();
}

absl::StatusOr<json::value> MergeFlat(const json::object& a, const json::object& b,
                                      const Place& place) {
  const bool tuples = (Find(a, "prefixItems") != nullptr) != (Find(b, "prefixItems") != nullptr);
  if (tuples && (Find(a, "items") != nullptr || Find(b, "items") != nullptr)) {
    return Refused(place, "prefixItems", "stands beside items of another part of allOf");
  }
  json::object merged = a;
  for (const auto& [name, value] : b) {
    const std::string_view key(name.data(), name.size());
    json::value* before = merged.if_contains(name);
    if (before == nullptr) {
      merged[name] = value;
    } else if (key == "type") {
      EM_ASSIGN_OR_RETURN(*before, CommonType(a, b, place));
      if (before->as_array().empty()) return json::value(false);
    } else if (key == "const") {
      if (*before != value) return json::value(false);
    } else if (key != "properties" && !IsAnnotation(key)) {
      EM_RETURN_IF_ERROR(Combine(key, json::value(*before), value, place, *before));
    }
  }
  MergeProperties(a, b, merged);
  return merged;
}

// Whether a property that both require tells their objects apart.
absl::StatusOr<bool> PropertiesApart(const json::object& a, const json::object& b,
                                     const Place& place, const Resolver& resolve, int depth) {
  const json::value* first = Find(a, "properties");
  const json::value* second = Find(b, "properties");
  const json::value* needed = Find(a, "required");
  const json::value* also = Find(b, "required");
  if (first == nullptr || second == nullptr || needed == nullptr || also == nullptr) return false;
  if (!first->is_object() || !second->is_object()) return false;
  for (const json::value& name : Intersection(*needed, *also)) {
    if (!name.is_string()) continue;
    const json::value* x = first->as_object().if_contains(name.as_string());
    const json::value* y = second->as_object().if_contains(name.as_string());
    if (x == nullptr || y == nullptr) continue;
    EM_ASSIGN_OR_RETURN(const bool apart, Apart(*x, *y, place, resolve, depth + 1));
    if (apart) return true;
  }
  return false;
}

// Every branch of a's anyOf or oneOf is apart from b.
absl::StatusOr<bool> BranchesApart(const json::value& branches, const json::value& b,
                                   const Place& place, const Resolver& resolve, int depth) {
  if (!branches.is_array()) return false;
  for (const json::value& branch : branches.as_array()) {
    EM_ASSIGN_OR_RETURN(const bool apart, Apart(branch, b, place, resolve, depth + 1));
    if (!apart) return false;
  }
  return true;
}

}  // namespace

absl::StatusOr<json::value> Merge(const json::value& a, const json::value& b, const Place& place,
                                  const Resolver& resolve, int depth) {
  if (depth > kDepthMax) return TooDeep(place);
  EM_ASSIGN_OR_RETURN(const json::value first, Flat(a, place, resolve, depth));
  EM_ASSIGN_OR_RETURN(const json::value second, Flat(b, place, resolve, depth));
  if (first.is_bool()) return first.as_bool() ? second : first;
  if (second.is_bool()) return second.as_bool() ? first : second;
  if (!first.is_object() || !second.is_object()) {
    return Refused(place, "allOf", "holds something that is no schema");
  }
  return MergeFlat(first.as_object(), second.as_object(), place);
}

absl::StatusOr<bool> Apart(const json::value& a, const json::value& b, const Place& place,
                           const Resolver& resolve, int depth) {
  if (depth > kDepthMax) return false;
  EM_ASSIGN_OR_RETURN(const json::value x, Flat(a, place, resolve, depth));
  EM_ASSIGN_OR_RETURN(const json::value y, Flat(b, place, resolve, depth));
  if (x == json::value(false) || y == json::value(false)) return true;
  if (!x.is_object() || !y.is_object()) return false;
  const json::object& first = x.as_object();
  const json::object& second = y.as_object();
  for (const char* keyword : {"anyOf", "oneOf"}) {
    for (const auto& [self, other] : {std::pair{&first, &y}, {&second, &x}}) {
      const json::value* branches = Find(*self, keyword);
      if (branches == nullptr) continue;
      EM_ASSIGN_OR_RETURN(const bool apart,
                          BranchesApart(*branches, *other, place, resolve, depth));
      if (apart) return true;
    }
  }
  EM_ASSIGN_OR_RETURN(const auto values, ValuesOf(first, place));
  EM_ASSIGN_OR_RETURN(const auto others, ValuesOf(second, place));
  if (values && others && Intersection(*values, *others).empty()) return true;
  const auto types_of = [&](const json::object& schema,
                            const std::optional<json::array>& listed) -> absl::StatusOr<uint32_t> {
    EM_ASSIGN_OR_RETURN(const auto named, NamedTypes(schema, place));
    uint32_t types = listed ? 0 : named.value_or(kAnyType);
    if (listed) {
      for (const json::value& value : *listed) types |= TypeOfValue(value);
    }
    return types;
  };
  EM_ASSIGN_OR_RETURN(const uint32_t left, types_of(first, values));
  EM_ASSIGN_OR_RETURN(const uint32_t right, types_of(second, others));
  if (CommonTypes(left, right) == 0) return true;
  if (left != kObject || right != kObject) return false;
  return PropertiesApart(first, second, place, resolve, depth);
}

}  // namespace expertmesh::model::schema

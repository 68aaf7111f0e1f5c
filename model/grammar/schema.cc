#include "model/grammar/schema.h"

#include <algorithm>
#include <array>
#include <map>
#include <utility>

#include "absl/strings/str_cat.h"
#include "model/grammar/pattern.h"
#include "model/grammar/schema_parts.h"
#include "model/tokenizer/exact_json.h"
#include "model/tokenizer/python_json.h"
#include "model/tokenizer/utf8.h"
#include "services/base/status.h"

namespace expertmesh::model {
namespace {

using namespace schema;  // NOLINT(google-build-using-namespace): inner names of this compiler

constexpr int kDepthMax = 100;
constexpr int kMergesMax = 1000;
constexpr size_t kBranchesMax = 500;
constexpr size_t kOneOfMax = 100;

constexpr std::string_view kBareInteger = "^-?(?:0|[1-9][0-9]{0,14})$";
constexpr std::string_view kBareNumber =
    "^-?(?:0|[1-9][0-9]{0,14})(?:\\.[0-9]{1,15})?(?:[eE][+-]?[0-9]{1,2})?$";

constexpr std::array<std::string_view, 23> kKeywords = {"type",
                                                        "enum",
                                                        "const",
                                                        "anyOf",
                                                        "oneOf",
                                                        "allOf",
                                                        "$ref",
                                                        "properties",
                                                        "required",
                                                        "additionalProperties",
                                                        "items",
                                                        "prefixItems",
                                                        "minItems",
                                                        "maxItems",
                                                        "minLength",
                                                        "maxLength",
                                                        "pattern",
                                                        "format",
                                                        "minimum",
                                                        "maximum",
                                                        "exclusiveMinimum",
                                                        "exclusiveMaximum",
                                                        "multipleOf"};

std::string_view View(const json::string& s) { return {s.data(), s.size()}; }
std::string_view View(json::string_view s) { return {s.data(), s.size()}; }

// Keywords that are refused, but for values that ask for nothing.
bool AsksNothing(std::string_view keyword, const json::value& value) {
  if (keyword == "uniqueItems") return value == json::value(false);
  if (keyword == "minProperties" || keyword == "minContains") return value == json::value(0);
  if (keyword == "patternProperties" || keyword == "dependentRequired" ||
      keyword == "dependentSchemas") {
    return value.is_object() && value.as_object().empty();
  }
  return value.is_null();
}

class Compiler {
 public:
  Compiler(GrammarBuilder& builder, json::value root) : builder_(builder), root_(std::move(root)) {
    resolve_ = [this](std::string_view ref, const Place& place) -> absl::StatusOr<json::value> {
      EM_ASSIGN_OR_RETURN(const json::value* target, Resolve(ref, place));
      return *target;
    };
  }

  absl::StatusOr<NodeId> Run() { return Compile(root_, Place{}, 0); }

 private:
  absl::StatusOr<NodeId> Compile(const json::value& schema, const Place& place, int depth) {
    if (schema.is_bool()) return schema.as_bool() ? Any() : builder_.Add(ChoiceNode{});
    if (!schema.is_object()) return Refused(place, "schema", "is neither an object nor a boolean");
    if (builder_.full() || depth > kDepthMax) {
      return Refused(place, "schema", "is too large or nested too deep");
    }
    const json::object& object = schema.as_object();
    const json::value* ref = Find(object, "$ref");
    const bool alone = ref != nullptr && std::all_of(object.begin(), object.end(), [](auto& kv) {
                         return View(kv.key()) == "$ref" || IsAnnotation(View(kv.key()));
                       });
    if (alone && ref->is_string()) return Reference(View(ref->as_string()), place, depth);
    if (ref == nullptr && Find(object, "allOf") == nullptr) return Plain(object, place, depth);
    return Remembered("all " + json::serialize(schema), [&]() -> absl::StatusOr<NodeId> {
      EM_RETURN_IF_ERROR(CountMerge(place));
      EM_ASSIGN_OR_RETURN(const json::value merged,
                          Merge(schema, json::value(true), place, resolve_, 0));
      return Compile(merged, place, depth + 1);
    });
  }

  // The node of `key`, made once; what refers to it while it is made gets the same.
  template <class Make>
  absl::StatusOr<NodeId> Remembered(const std::string& key, Make make) {
    const auto it = remembered_.find(key);
    if (it != remembered_.end()) return it->second;
    const NodeId reserved = builder_.Reserve();
    remembered_[key] = reserved;
    EM_ASSIGN_OR_RETURN(const NodeId node, make());
    if (!builder_.full()) builder_.Set(reserved, ChoiceNode{{node}});
    return reserved;
  }

  absl::StatusOr<NodeId> Reference(std::string_view ref, const Place& place, int depth) {
    return Remembered(absl::StrCat("ref ", std::string(ref)), [&]() -> absl::StatusOr<NodeId> {
      EM_ASSIGN_OR_RETURN(const json::value* target, Resolve(ref, place));
      return Compile(*target, Place{std::string(ref.substr(1))}, depth + 1);
    });
  }

  absl::StatusOr<const json::value*> Resolve(std::string_view ref, const Place& place) const {
    if (!ref.starts_with("#") || (ref.size() > 1 && ref[1] != '/')) {
      return Refused(place, "$ref", "must point into this schema, such as \"#/$defs/name\"");
    }
    boost::system::error_code error;
    const json::value* target =
        root_.find_pointer(json::string_view(ref.data() + 1, ref.size() - 1), error);
    if (target == nullptr) {
      return Refused(place, "$ref",
                     absl::StrCat("names ", std::string(ref), ", which is not there"));
    }
    return target;
  }

  absl::Status CountMerge(const Place& place) {
    if (++merges_ <= kMergesMax) return absl::OkStatus();
    return Refused(place, "allOf", "and its like are used too often");
  }

  absl::Status CheckKeywords(const json::object& schema, const Place& place) const {
    for (const auto& [name, value] : schema) {
      const std::string_view keyword = View(name);
      if (IsAnnotation(keyword) || AsksNothing(keyword, value)) continue;
      if (std::find(kKeywords.begin(), kKeywords.end(), keyword) != kKeywords.end()) continue;
      return Refused(place, keyword, "is not supported");
    }
    return absl::OkStatus();
  }

  absl::StatusOr<NodeId> Plain(const json::object& schema, const Place& place, int depth) {
    EM_RETURN_IF_ERROR(CheckKeywords(schema, place));
    const json::value* any = Find(schema, "anyOf");
    const json::value* one = Find(schema, "oneOf");
    if (any != nullptr && one != nullptr) {
      return Refused(place, "oneOf", "stands beside anyOf");
    }
    if (any != nullptr) return Branches(schema, "anyOf", *any, place, depth);
    if (one != nullptr) return Branches(schema, "oneOf", *one, place, depth);
    EM_ASSIGN_OR_RETURN(const auto values, ValuesOf(schema, place));
    if (values) return Values(schema, *values, place);
    EM_ASSIGN_OR_RETURN(const uint32_t types, TypesOf(schema, place));
    if (types == kAnyType && Find(schema, "type") == nullptr) return Any();
    ChoiceNode choice;
    for (const uint32_t type : {kObject, kArray, kString, kNumber, kInteger, kBoolean, kNull}) {
      if ((types & type) == 0) continue;
      EM_ASSIGN_OR_RETURN(const NodeId node, OfType(schema, type, place, depth));
      choice.branches.push_back(node);
    }
    return choice.branches.size() == 1 ? choice.branches[0] : builder_.Add(std::move(choice));
  }

  absl::StatusOr<NodeId> Branches(const json::object& schema, const std::string& keyword,
                                  const json::value& list, const Place& place, int depth) {
    if (!list.is_array() || list.as_array().empty()) {
      return Refused(place, keyword, "must be an array that is not empty");
    }
    const json::array& branches = list.as_array();
    if (branches.size() > kBranchesMax) {
      return Refused(place, keyword, absl::StrCat("may have at most ", kBranchesMax, " branches"));
    }
    if (keyword == "oneOf") EM_RETURN_IF_ERROR(CheckApart(branches, place));
    json::object rest = schema;
    rest.erase(keyword);
    const bool alone = std::all_of(rest.begin(), rest.end(),
                                   [](auto& kv) { return IsAnnotation(View(kv.key())); });
    ChoiceNode choice;
    for (size_t i = 0; i < branches.size(); ++i) {
      const Place at = place.At(keyword).At(absl::StrCat(i));
      json::value branch = branches[i];
      if (!alone) {
        EM_RETURN_IF_ERROR(CountMerge(place));
        EM_ASSIGN_OR_RETURN(branch, Merge(rest, branch, at, resolve_, 0));
      }
      EM_ASSIGN_OR_RETURN(const NodeId node, Compile(branch, at, depth + 1));
      choice.branches.push_back(node);
    }
    return builder_.Add(std::move(choice));
  }

  absl::Status CheckApart(const json::array& branches, const Place& place) {
    if (branches.size() > kOneOfMax) {
      return Refused(place, "oneOf", absl::StrCat("may have at most ", kOneOfMax, " branches"));
    }
    for (size_t i = 0; i < branches.size(); ++i) {
      for (size_t j = 0; j < i; ++j) {
        EM_ASSIGN_OR_RETURN(const bool apart, Apart(branches[j], branches[i], place, resolve_, 0));
        if (apart) continue;
        return Refused(place, "oneOf",
                       absl::StrCat("has branches ", j, " and ", i,
                                    " that one value may satisfy both; use anyOf, or tell them "
                                    "apart by type or by a required property with a const"));
      }
    }
    return absl::OkStatus();
  }

  absl::StatusOr<NodeId> Values(const json::object& schema, const json::array& values,
                                const Place& place) {
    for (const auto& [name, value] : schema) {
      const std::string_view keyword = View(name);
      if (keyword != "type" && keyword != "enum" && keyword != "const" && !IsAnnotation(keyword)) {
        return Refused(place, keyword, "stands beside enum or const");
      }
    }
    std::vector<std::string> literals;
    for (const json::value& value : values) {
      literals.push_back(PythonJson(value));
    }
    if (literals.empty()) return builder_.Add(ChoiceNode{});
    if (literals.size() == 1) return builder_.Add(LiteralNode{literals[0]});
    EM_ASSIGN_OR_RETURN(ByteMachine machine, ByteMachine::OfLiterals(literals));
    return builder_.Add(MachineNode{std::make_shared<ByteMachine>(std::move(machine)), false});
  }

  absl::StatusOr<NodeId> OfType(const json::object& schema, uint32_t type, const Place& place,
                                int depth) {
    switch (type) {
      case kObject:
        return Object(schema, place, depth);
      case kArray:
        return Array(schema, place, depth);
      case kString:
        return String(schema, place);
      case kNumber:
      case kInteger:
        return Number(schema, type == kInteger, place);
      case kBoolean:
        return Remembered("boolean", [&] { return Literals({"true", "false"}); });
      default:
        return builder_.Add(LiteralNode{"null"});
    }
  }

  absl::StatusOr<NodeId> Literals(const std::vector<std::string>& literals) {
    EM_ASSIGN_OR_RETURN(ByteMachine machine, ByteMachine::OfLiterals(literals));
    return builder_.Add(MachineNode{std::make_shared<ByteMachine>(std::move(machine)), false});
  }

  absl::StatusOr<NodeId> Number(const json::object& schema, bool integer, const Place& place) {
    if (!BoundsNumbers(schema)) {
      return Remembered(integer ? "integer" : "number", [&]() -> absl::StatusOr<NodeId> {
        EM_ASSIGN_OR_RETURN(ByteMachine machine, CompileBare(integer ? kBareInteger : kBareNumber));
        return builder_.Add(MachineNode{std::make_shared<ByteMachine>(std::move(machine)), false});
      });
    }
    EM_ASSIGN_OR_RETURN(const NumberRange range, RangeOf(schema, integer, place));
    return builder_.Add(NumberNode{range});
  }

  absl::StatusOr<NodeId> String(const json::object& schema, const Place& place) {
    StringNode node;
    EM_ASSIGN_OR_RETURN(node.least, CountOf(schema, "minLength", 0, place));
    EM_ASSIGN_OR_RETURN(node.most, CountOf(schema, "maxLength", kNoLimit, place));
    const json::value* pattern = Find(schema, "pattern");
    const json::value* format = Find(schema, "format");
    if (pattern == nullptr && format == nullptr) return builder_.Add(node);
    if (pattern != nullptr && format != nullptr) {
      return Refused(place, "format", "stands beside pattern");
    }
    const json::value& given = pattern != nullptr ? *pattern : *format;
    if (!given.is_string()) {
      return Refused(place, pattern != nullptr ? "pattern" : "format", "must be a string");
    }
    std::string_view text = View(given.as_string());
    if (format != nullptr) {
      EM_ASSIGN_OR_RETURN(text, PatternOfFormat(text, place));
    }
    const std::string key =
        absl::StrCat("pattern ", node.least, " ", node.most, " ", std::string(text));
    return Remembered(key, [&]() -> absl::StatusOr<NodeId> {
      auto machine = CompilePattern(text, node.least, node.most);
      if (!machine.ok()) {
        return base::Annotate(machine.status(), absl::StrCat("at \"#", place.pointer, "\": "));
      }
      return builder_.Add(MachineNode{std::make_shared<ByteMachine>(*std::move(machine)), true});
    });
  }

  absl::StatusOr<NodeId> Array(const json::object& schema, const Place& place, int depth) {
    ArrayNode node;
    EM_ASSIGN_OR_RETURN(node.least, CountOf(schema, "minItems", 0, place));
    EM_ASSIGN_OR_RETURN(node.most, CountOf(schema, "maxItems", kNoLimit, place));
    if (const json::value* prefix = Find(schema, "prefixItems")) {
      if (!prefix->is_array()) return Refused(place, "prefixItems", "must be an array");
      const Place at = place.At("prefixItems");
      for (size_t i = 0; i < prefix->as_array().size(); ++i) {
        EM_ASSIGN_OR_RETURN(const NodeId item,
                            Compile(prefix->as_array()[i], at.At(absl::StrCat(i)), depth + 1));
        node.prefix.push_back(item);
      }
    }
    const json::value* items = Find(schema, "items");
    if (items != nullptr && items->is_array()) {
      return Refused(place, "items", "must be one schema; a list of them is prefixItems");
    }
    if (items != nullptr) {
      EM_ASSIGN_OR_RETURN(node.items, Compile(*items, place.At("items"), depth + 1));
    } else if (node.prefix.empty() || node.least > node.prefix.size()) {
      EM_ASSIGN_OR_RETURN(node.items, Any());
    }
    return builder_.Add(std::move(node));
  }

  absl::StatusOr<NodeId> Object(const json::object& schema, const Place& place, int depth) {
    const json::value* properties = Find(schema, "properties");
    const json::value* additional = Find(schema, "additionalProperties");
    const json::value* required = Find(schema, "required");
    if (properties != nullptr && !properties->is_object()) {
      return Refused(place, "properties", "must be an object");
    }
    if (required != nullptr && !required->is_array()) {
      return Refused(place, "required", "must be an array of names");
    }
    ObjectNode node;
    // Where nothing is said about other keys, none come if any are listed.
    const bool open = additional != nullptr || (properties == nullptr && required == nullptr);
    const json::value anything(true);
    if (open) {
      EM_ASSIGN_OR_RETURN(node.additional, Compile(additional != nullptr ? *additional : anything,
                                                   place.At("additionalProperties"), depth + 1));
    }
    std::map<std::string, size_t, std::less<>> index;
    const auto add = [&](std::string_view name, NodeId value, bool needed) {
      index.emplace(std::string(name), node.properties.size());
      node.properties.push_back(
          {std::string(name), PythonJson(json::string(name.data(), name.size())), value, needed});
    };
    if (properties != nullptr) {
      const Place at = place.At("properties");
      for (const auto& [name, value] : properties->as_object()) {
        EM_ASSIGN_OR_RETURN(const NodeId id, Compile(value, at.At(View(name)), depth + 1));
        add(View(name), id, false);
      }
    }
    for (const json::value& name : required != nullptr ? required->as_array() : json::array()) {
      if (!name.is_string()) return Refused(place, "required", "must be an array of names");
      const auto it = index.find(View(name.as_string()));
      if (it != index.end()) {
        node.properties[it->second].required = true;
        continue;
      }
      EM_ASSIGN_OR_RETURN(const NodeId any, Any());
      add(View(name.as_string()), node.additional.value_or(any), true);
    }
    return builder_.Add(std::move(node));
  }

  // Any JSON value.
  absl::StatusOr<NodeId> Any() {
    return Remembered("any", [&]() -> absl::StatusOr<NodeId> {
      const NodeId self = remembered_.at("any");
      ObjectNode object;
      object.additional = self;
      ArrayNode array;
      array.items = self;
      EM_ASSIGN_OR_RETURN(const NodeId number, Number({}, false, {}));
      EM_ASSIGN_OR_RETURN(const NodeId boolean, OfType({}, kBoolean, {}, 0));
      return builder_.Add(ChoiceNode{{builder_.Add(std::move(object)),
                                      builder_.Add(std::move(array)), builder_.Add(StringNode{}),
                                      number, boolean, builder_.Add(LiteralNode{"null"})}});
    });
  }

  GrammarBuilder& builder_;
  const json::value root_;
  Resolver resolve_;
  std::map<std::string, NodeId> remembered_;
  int merges_ = 0;
};

}  // namespace

absl::StatusOr<NodeId> AddSchema(GrammarBuilder& builder, std::string_view schema) {
  if (schema.size() > kSchemaBytesMax) {
    return base::Error(base::Reason::kSchemaUnsupported,
                       absl::StrCat("the schema has ", schema.size(), " bytes, at most ",
                                    kSchemaBytesMax, " are taken"));
  }
  if (FindInvalidUtf8(schema)) {
    return base::Error(base::Reason::kInvalidArgument, "the schema is not UTF-8");
  }
  json::parse_options options;
  options.max_depth = 2 * kDepthMax;
  boost::system::error_code error;
  json::value root;
  ParseExactJson(schema, options, {}, root, error);
  if (error) {
    return base::Error(base::Reason::kInvalidArgument,
                       absl::StrCat("the schema is not JSON: ", error.message()));
  }
  return Compiler(builder, std::move(root)).Run();
}

absl::StatusOr<std::shared_ptr<const Grammar>> CompileSchema(std::string_view schema) {
  GrammarBuilder builder;
  EM_ASSIGN_OR_RETURN(const NodeId root, AddSchema(builder, schema));
  return std::move(builder).Finish(root);
}

}  // namespace expertmesh::model

#include "model/config_quantization.h"

#include <boost/json/array.hpp>
#include <boost/json/object.hpp>
#include <boost/json/serialize.hpp>
#include <filesystem>

#include "absl/strings/str_cat.h"
#include "model/checkpoint_files.h"
#include "model/config_json.h"

namespace expertmesh::model {
namespace {

namespace json = boost::json;

constexpr size_t kConfigBytesMax = 1 << 20;
constexpr int64_t kBlockMax = 1 << 16;

absl::Status Unsupported(std::string_view key, const json::value* value) {
  std::string shown = value ? json::serialize(*value) : "missing";
  if (shown.size() > 60) shown = shown.substr(0, 57) + "...";
  return base::Error(
      base::Reason::kBadConfig,
      absl::StrCat("quantization_config: \"", std::string(key), "\" is ", shown,
                   "; supported are quant_method \"fp8\" (fmt \"e4m3\", weight_block_size of two "
                   "numbers, experts also fp4) and \"expertmesh\" (bits 8 or 4, group_size 32 or "
                   "128); not gptq, awq, bitsandbytes or compressed-tensors"));
}

// The value of a key; null counts as absent.
const json::value* Find(const json::object& object, std::string_view key) {
  const json::value* value = object.if_contains(json::string_view(key.data(), key.size()));
  return value && value->is_null() ? nullptr : value;
}

bool IsText(const json::value* value, std::string_view text) {
  return value && value->is_string() &&
         std::string_view(value->get_string().data(), value->get_string().size()) == text;
}

bool IsNumber(const json::value* value, int64_t number) {
  return value && value->is_int64() && value->get_int64() == number;
}

absl::StatusOr<Quantization> ParseFp8(const json::object& object) {
  const json::value* format = Find(object, "fmt");
  if (format && !IsText(format, "e4m3")) return Unsupported("fmt", format);
  Quantization quantization;
  const json::value* size = Find(object, "weight_block_size");
  if (!size) return quantization;
  if (!size->is_array() || size->get_array().size() != 2) {
    return Unsupported("weight_block_size", size);
  }
  for (const json::value& extent : size->get_array()) {
    if (!extent.is_int64() || extent.get_int64() < 1 || extent.get_int64() > kBlockMax) {
      return Unsupported("weight_block_size", size);
    }
  }
  quantization.block_rows = static_cast<uint64_t>(size->get_array()[0].get_int64());
  quantization.block_columns = static_cast<uint64_t>(size->get_array()[1].get_int64());
  return quantization;
}

absl::StatusOr<Quantization> ParseOwn(const json::object& object) {
  const json::value* bits = Find(object, "bits");
  if (!IsNumber(bits, 8) && !IsNumber(bits, 4)) return Unsupported("bits", bits);
  const json::value* group = Find(object, "group_size");
  if (!IsNumber(group, 32) && !IsNumber(group, 128)) return Unsupported("group_size", group);
  Quantization quantization;
  quantization.group_size = static_cast<uint64_t>(group->get_int64());
  return quantization;
}

}  // namespace

absl::StatusOr<Quantization> ParseQuantization(const json::value& value) {
  if (!value.is_object()) return Unsupported("quantization_config", &value);
  const json::object& object = value.get_object();
  const json::value* method = Find(object, "quant_method");
  if (IsText(method, "fp8")) return ParseFp8(object);
  if (IsText(method, "expertmesh")) return ParseOwn(object);
  return Unsupported("quant_method", method);
}

absl::StatusOr<Quantization> LoadQuantization(const std::string& directory) {
  const std::string path = JoinPath(directory, "config.json");
  std::error_code error;
  if (!std::filesystem::exists(path, error)) return Quantization{};
  constexpr auto kReason = base::Reason::kBadConfig;
  EM_ASSIGN_OR_RETURN(const std::string text, ReadSmallFile(path, kConfigBytesMax, kReason));
  const absl::StatusOr<json::value> root = ParseJson(text, kReason);
  if (!root.ok()) return base::Annotate(root.status(), path + ": ");
  const json::value* value =
      root->is_object() ? Find(root->get_object(), "quantization_config") : nullptr;
  if (!value) return Quantization{};
  absl::StatusOr<Quantization> quantization = ParseQuantization(*value);
  if (!quantization.ok()) return base::Annotate(quantization.status(), path + ": ");
  return quantization;
}

}  // namespace expertmesh::model

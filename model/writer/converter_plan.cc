#include "model/writer/converter_plan.h"

#include <boost/json/array.hpp>
#include <boost/json/object.hpp>
#include <boost/json/serialize.hpp>
#include <set>

#include "absl/strings/str_cat.h"
#include "model/checkpoint_matrix.h"
#include "model/config_json.h"
#include "services/base/status.h"

namespace expertmesh::model {
namespace {

namespace json = boost::json;

constexpr MatrixFormat kFp8Block128{ValueFormat::kE4m3, ScaleFormat::kF32, 128, 128};
constexpr MatrixFormat kFp8Block32{ValueFormat::kE4m3, ScaleFormat::kE8m0, 32, 32};
constexpr MatrixFormat kFp4Groups{ValueFormat::kE2m1, ScaleFormat::kE8m0, 1, kFp4Block};

bool IsPlain(TargetFormat format) {
  return format == TargetFormat::kF32 || format == TargetFormat::kBf16;
}

// The form of a tensor in the new directory; nothing if it stays as it is.
std::optional<MatrixFormat> TargetOf(const TensorSpec& spec, const StoredMatrix& source,
                                     const Config& config, TargetFormat format,
                                     uint64_t group_size) {
  if (IsPlain(format)) {
    return spec.always_f32 || format == TargetFormat::kF32 ? kPlainF32 : kPlainBf16;
  }
  if (spec.part == "engram_tables") return std::nullopt;
  if (!MayBeQuantised(spec)) {
    if (!source.format.is_quantised()) return std::nullopt;
    return config.torch_dtype == "float32" ? kPlainF32 : kPlainBf16;
  }
  switch (format) {
    case TargetFormat::kFp8Block32:
      return kFp8Block32;
    case TargetFormat::kFp4:
      return spec.part == "routed_experts" ? kFp4Groups : kFp8Block128;
    case TargetFormat::kInt8:
      return MatrixFormat{ValueFormat::kInt8, ScaleFormat::kF16, 1, group_size};
    case TargetFormat::kInt4:
      return MatrixFormat{ValueFormat::kInt4, ScaleFormat::kF16, 1, group_size};
    default:
      return kFp8Block128;
  }
}

TensorType ValueType(ValueFormat format) {
  switch (format) {
    case ValueFormat::kF32:
      return TensorType::kF32;
    case ValueFormat::kF16:
      return TensorType::kF16;
    case ValueFormat::kBf16:
      return TensorType::kBf16;
    case ValueFormat::kE4m3:
      return TensorType::kF8E4m3;
    case ValueFormat::kE2m1:
    case ValueFormat::kInt8:
      return TensorType::kI8;
    case ValueFormat::kInt4:
      return TensorType::kU8;
  }
  return TensorType::kF32;
}

StoredTensor ScaleTensor(const StoredMatrix& source, const MatrixFormat& target) {
  const std::vector<std::string> names = ScaleNames(source.name);
  StoredTensor scales{names[0], TensorType::kF32, {}};
  if (target.scales == ScaleFormat::kE8m0) scales.type = TensorType::kF8E8m0;
  if (target.values == ValueFormat::kE2m1) scales.name = names[1];
  if (target.scales == ScaleFormat::kF16) {
    scales.name = names[2];
    scales.type = TensorType::kF16;
  }
  scales.shape = {target.ScaleRows(source.rows), target.ScaleColumns(source.columns)};
  return scales;
}

class Planner {
 public:
  void Encode(const TensorSpec& spec, StoredMatrix source, const MatrixFormat& target) {
    StoredTensor values{spec.name, ValueType(target.values), spec.shape};
    if (target.is_quantised()) values.shape = {source.rows, target.RowBytes(source.columns)};
    ConvertItem item{plan_.tensors.size(), {}, {}, target, spec.part};
    plan_.tensors.push_back(std::move(values));
    if (target.is_quantised()) plan_.tensors.push_back(ScaleTensor(source, target));
    plan_.source_bytes += source.values.size();
    item.source = std::move(source);
    plan_.items.push_back(std::move(item));
  }

  void Copy(const TensorView& view) {
    plan_.items.push_back({plan_.tensors.size(), view.bytes, {}, {}, {}});
    plan_.tensors.push_back({view.name, view.type, view.shape});
    plan_.source_bytes += view.bytes.size();
  }

  ConvertPlan Take() { return std::move(plan_); }

 private:
  ConvertPlan plan_;
};

json::object QuantizationJson(TargetFormat format, uint64_t group_size) {
  if (format == TargetFormat::kInt8 || format == TargetFormat::kInt4) {
    return {{"quant_method", "expertmesh"},
            {"bits", format == TargetFormat::kInt8 ? 8 : 4},
            {"group_size", group_size}};
  }
  const int block = format == TargetFormat::kFp8Block32 ? 32 : 128;
  return {{"quant_method", "fp8"},
          {"fmt", "e4m3"},
          {"activation_scheme", "dynamic"},
          {"scale_fmt", "ue8m0"},
          {"weight_block_size", json::array{block, block}}};
}

}  // namespace

absl::StatusOr<ConvertPlan> PlanConversion(const Checkpoint& checkpoint, const Config& config,
                                           TargetFormat format, uint64_t group_size) {
  Planner planner;
  std::set<std::string, std::less<>> used;
  for (const TensorSpec& spec : TensorSpecs(config)) {
    EM_ASSIGN_OR_RETURN(StoredMatrix source, checkpoint.Weight(spec));
    used.insert(spec.name);
    if (source.format.is_quantised()) used.insert(checkpoint.ScalesOf(spec.name)[0]);
    const auto target = TargetOf(spec, source, config, format, group_size);
    if (!target || *target == source.format) {
      planner.Copy(*checkpoint.Find(spec.name));
      if (source.format.is_quantised()) {
        planner.Copy(*checkpoint.Find(checkpoint.ScalesOf(spec.name)[0]));
      }
    } else {
      planner.Encode(spec, std::move(source), *target);
    }
  }
  for (const auto& [name, view] : checkpoint.tensors()) {
    if (!used.contains(name)) planner.Copy(view);
  }
  return planner.Take();
}

absl::StatusOr<std::string> ConvertedConfig(const std::string& text, TargetFormat format,
                                            uint64_t group_size) {
  EM_ASSIGN_OR_RETURN(json::value root, ParseJson(text, base::Reason::kBadConfig));
  if (!root.is_object()) return base::Error(base::Reason::kBadConfig, "not a JSON object");
  json::object& config = root.get_object();
  config.erase("quantization_config");
  config.erase("expert_dtype");
  if (IsPlain(format)) {
    const char* dtype = format == TargetFormat::kF32 ? "float32" : "bfloat16";
    for (const char* key : {"torch_dtype", "dtype"}) {
      if (config.contains(key)) config[key] = dtype;
    }
    if (!config.contains("dtype")) config["torch_dtype"] = dtype;
  } else {
    config["quantization_config"] = QuantizationJson(format, group_size);
  }
  if (format == TargetFormat::kFp4) config["expert_dtype"] = "fp4";
  std::string out = "{";
  for (const auto& [key, value] : config) {
    absl::StrAppend(&out, out.size() > 1 ? ",\n  " : "\n  ", json::serialize(json::string(key)),
                    ": ", json::serialize(value));
  }
  return out + "\n}\n";
}

}  // namespace expertmesh::model

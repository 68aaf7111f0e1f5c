#include "cli/model_commands.h"

#include <boost/json/array.hpp>
#include <boost/json/serialize.hpp>
#include <ostream>
#include <vector>

#include "absl/strings/str_format.h"
#include "cli/model_summary.h"
#include "cli/stop_flag.h"
#include "model/config.h"
#include "model/writer/converter.h"
#include "model/writer/gguf_export.h"
#include "model/writer/model_writer.h"
#include "services/base/expert_node.h"
#include "services/base/status.h"

namespace expertmesh::cli {
namespace {

constexpr uint64_t kProgressFromBytes = 100'000'000;  // smaller models are done before one reads it

// One line for each tenth.
class Progress {
 public:
  Progress(std::ostream& err, const char* command) : err_(err), command_(command) {}

  void Tell(uint64_t done_bytes, uint64_t total_bytes) {
    const uint64_t tenth = done_bytes * 10 / total_bytes;
    if (total_bytes < kProgressFromBytes || tenth == told_) return;
    told_ = tenth;
    err_ << "expertmesh: model " << command_ << ": " << tenth * 10 << " % of "
         << total_bytes / 1'000'000 << " MB\n"
         << std::flush;
  }

 private:
  std::ostream& err_;
  const char* command_;
  uint64_t told_ = 0;
};

std::string ErrorTable(const std::vector<model::ConversionError>& errors) {
  std::string text = absl::StrFormat("%-16s %-12s %15s %12s %14s\n", "part", "stored as",
                                     "parameters", "max error", "relative RMS");
  for (const model::ConversionError& error : errors) {
    absl::StrAppendFormat(&text, "%-16s %-12s %15s %12.3e %14.3e\n", error.part, error.format,
                          WithCommas(error.elements), error.max_abs, error.RelativeRms());
  }
  return errors.empty() ? "Every tensor is stored so already: copied.\n" : text;
}

}  // namespace

absl::Status InitModel(const InitOptions& options, const Output& output) {
  EM_ASSIGN_OR_RETURN(const model::Preset preset, model::FindPreset(options.preset));
  Progress progress(output.err, "init");
  model::WriteOptions write;
  write.directory = options.directory;
  write.seed = options.seed;
  write.shard_bytes = uint64_t{options.shard_mb} * 1'000'000;
  write.threads = options.threads;
  write.progress = [&](uint64_t done, uint64_t total) { progress.Tell(done, total); };
  {
    const StopFlag stop;
    write.cancelled = &StopFlag::IsSet;
    EM_RETURN_IF_ERROR(model::WriteModel(preset, write));
  }
  EM_ASSIGN_OR_RETURN(const ModelSummary summary, SummarizeModel(options.directory));
  output.out << options.directory << ": " << WithCommas(summary.total.parameters)
             << " parameters, revision " << summary.revision << "\n";
  return absl::OkStatus();
}

absl::Status ConvertModel(const ConvertOptions& options, const Output& output) {
  model::ConvertOptions convert;
  EM_ASSIGN_OR_RETURN(convert.format, model::ParseTargetFormat(options.format));
  Progress progress(output.err, "convert");
  convert.from = options.from;
  convert.to = options.to;
  convert.group_size = options.group_size;
  convert.shard_bytes = uint64_t{options.shard_mb} * 1'000'000;
  convert.threads = options.threads;
  convert.progress = [&](uint64_t done, uint64_t total) { progress.Tell(done, total); };
  std::vector<model::ConversionError> errors;
  {
    const StopFlag stop;
    convert.cancelled = &StopFlag::IsSet;
    EM_ASSIGN_OR_RETURN(errors, model::ConvertModel(convert));
  }
  EM_ASSIGN_OR_RETURN(const ModelSummary summary, SummarizeModel(options.to));
  output.out << ErrorTable(errors) << "\n"
             << options.to << ": " << WithCommas(summary.total.bytes) << " bytes ("
             << FormatsText(summary) << "), revision " << summary.revision << "\n";
  return absl::OkStatus();
}

absl::Status ExportModel(const ExportOptions& options, const Output& output) {
  model::GgufOptions gguf;
  EM_ASSIGN_OR_RETURN(gguf.type, model::ParseGgufType(options.type));
  EM_ASSIGN_OR_RETURN(gguf.kv_b, model::ParseKvbForm(options.kv_b));
  Progress progress(output.err, "export");
  gguf.directory = options.directory;
  gguf.file = options.file;
  gguf.threads = options.threads;
  gguf.progress = [&](uint64_t done, uint64_t total) { progress.Tell(done, total); };
  model::GgufSummary summary;
  {
    const StopFlag stop;
    gguf.cancelled = &StopFlag::IsSet;
    EM_ASSIGN_OR_RETURN(summary, model::ExportGguf(gguf));
  }
  output.out << options.file << ": " << WithCommas(summary.bytes) << " bytes, "
             << WithCommas(summary.tensors) << " tensors, " << options.type << ", kv_b "
             << options.kv_b << "\n";
  if (summary.differs_in_epsilon) {
    output.err << "expertmesh: model export: rms_norm_eps is not 1e-6, and the file has one "
                  "epsilon for all norms: other engines use it in q_a and kv_a as well\n";
  }
  return absl::OkStatus();
}

absl::Status ShowModel(const ShowOptions& options, const Output& output) {
  ModelSummary summary;
  if (options.preset.empty()) {
    EM_ASSIGN_OR_RETURN(const auto overrides, model::ConfigOverrides::Parse(options.overrides));
    EM_ASSIGN_OR_RETURN(summary, SummarizeModel(options.directory, overrides));
  } else {
    EM_ASSIGN_OR_RETURN(const model::Preset preset, model::FindPreset(options.preset));
    summary = CountParameters(preset.config);
    summary.directory = options.preset;
  }
  output.out << (options.json ? SummaryJson(summary) : SummaryText(summary));
  return absl::OkStatus();
}

absl::Status PrintSlices(const SlicesOptions& options, const Output& output) {
  model::Config config;
  if (options.preset.empty()) {
    EM_ASSIGN_OR_RETURN(config, model::LoadConfig(options.directory));
  } else {
    EM_ASSIGN_OR_RETURN(const model::Preset preset, model::FindPreset(options.preset));
    config = preset.config;
  }
  EM_ASSIGN_OR_RETURN(const std::vector<base::ExpertRange> slices,
                      base::CutSlices(config.n_routed_experts, options.pools));
  boost::json::array names;
  for (const base::ExpertRange& slice : slices) {
    const std::string name = base::SliceName({&slice, 1});
    if (!options.json) output.out << name << "\n";
    names.push_back(boost::json::string(name));
  }
  if (options.json) output.out << boost::json::serialize(names) << "\n";
  return absl::OkStatus();
}

}  // namespace expertmesh::cli

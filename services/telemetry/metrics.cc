#include "services/telemetry/metrics.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <unordered_map>

#include "absl/strings/str_cat.h"
#include "prometheus/counter.h"
#include "prometheus/family.h"
#include "prometheus/gauge.h"
#include "prometheus/histogram.h"
#include "prometheus/registry.h"
#include "prometheus/text_serializer.h"
#include "services/telemetry/build_info.h"

namespace expertmesh::telemetry {
namespace {

[[noreturn]] void Abort(const std::string& message) {
  std::fprintf(stderr, "metrics: %s; see services/telemetry/metric_catalogue.h\n", message.c_str());
  std::abort();
}

std::string Joined(const Metrics::Labels& labels) {
  std::string text;
  for (const auto& [name, value] : labels) absl::StrAppend(&text, name, "=", value, " ");
  return text;
}

std::string ExposedName(const std::string& component, const MetricId& id) {
  return absl::StrCat("expertmesh_", component, "_", std::string(id.name));
}

bool HasLabels(const MetricId& id) { return !id.labels[0].empty(); }

bool LabelsMatch(const MetricId& id, const Metrics::Labels& labels) {
  size_t wanted = 0;
  for (std::string_view name : id.labels) {
    if (name.empty()) break;
    ++wanted;
    if (!labels.contains(std::string(name))) return false;
  }
  return labels.size() == wanted;
}

}  // namespace

void Counter::Add(double amount) {
  if (counter_ != nullptr) counter_->Increment(amount);
}
void Gauge::Set(double value) {
  if (gauge_ != nullptr) gauge_->Set(value);
}
void Gauge::Add(double amount) {
  if (gauge_ != nullptr) gauge_->Increment(amount);
}
void Histogram::Observe(double value) {
  if (histogram_ != nullptr) histogram_->Observe(value);
}

struct Metrics::Impl {
  template <class T>
  using Families = std::unordered_map<std::string_view, prometheus::Family<T>*>;

  // Makes the family of one catalogue row.
  void Build(const std::string& component, const MetricId& id);
  // The family of id, after checking that it is this component's, of type T and has these labels.
  template <class T>
  prometheus::Family<T>& Find(const Families<T>& families, const std::string& component,
                              const MetricId& id, const Labels& labels) const;

  prometheus::Registry registry;  // it and its families lock for themselves
  // Keyed by catalogue name; filled by the constructor and constant after it.
  Families<prometheus::Counter> counters;
  Families<prometheus::Gauge> gauges;
  Families<prometheus::Histogram> histograms;
};

void Metrics::Impl::Build(const std::string& component, const MetricId& id) {
  const std::string name = ExposedName(component, id);
  const std::string help(id.help);
  switch (id.type) {
    case MetricType::kCounter:
      counters[id.name] = &prometheus::BuildCounter().Name(name).Help(help).Register(registry);
      if (!HasLabels(id)) counters[id.name]->Add({});
      break;
    case MetricType::kGauge:
      gauges[id.name] = &prometheus::BuildGauge().Name(name).Help(help).Register(registry);
      if (!HasLabels(id)) gauges[id.name]->Add({});
      break;
    case MetricType::kHistogram:
      histograms[id.name] = &prometheus::BuildHistogram().Name(name).Help(help).Register(registry);
      if (!HasLabels(id)) {
        histograms[id.name]->Add(
            {}, prometheus::Histogram::BucketBoundaries(id.buckets.begin(), id.buckets.end()));
      }
      break;
  }
}

template <class T>
prometheus::Family<T>& Metrics::Impl::Find(const Families<T>& families,
                                           const std::string& component, const MetricId& id,
                                           const Labels& labels) const {
  const auto it = families.find(id.name);
  if (it == families.end() || (!id.component.empty() && id.component != component)) {
    Abort(absl::StrCat("component ", component, " has no metric ", std::string(id.component), "/",
                       std::string(id.name), " of the asked type"));
  }
  if (!LabelsMatch(id, labels)) {
    Abort(absl::StrCat(ExposedName(component, id), " does not have the labels ", Joined(labels)));
  }
  return *it->second;
}

Metrics::Metrics(std::string component)
    : component_(std::move(component)), impl_(std::make_unique<Impl>()) {
  std::replace(component_.begin(), component_.end(), '-', '_');
  if (std::find(std::begin(kComponents), std::end(kComponents), component_) ==
      std::end(kComponents)) {
    Abort(absl::StrCat("unknown component ", component_));
  }
  for (const MetricId* id : Catalogue()) {
    if (id->component.empty() || id->component == component_) impl_->Build(component_, *id);
  }
  const BuildInfo build = GetBuildInfo();
  GetGauge(metric::kBuildInfo,
           {{"version", std::string(build.version)}, {"commit", std::string(build.commit)}})
      .Set(1);
}

Metrics::~Metrics() = default;

Counter Metrics::GetCounter(const MetricId& id, const Labels& labels) {
  auto& family = impl_->Find(impl_->counters, component_, id, labels);
  return Counter(&family.Add(labels));
}

Gauge Metrics::GetGauge(const MetricId& id, const Labels& labels) {
  auto& family = impl_->Find(impl_->gauges, component_, id, labels);
  return Gauge(&family.Add(labels));
}

Histogram Metrics::GetHistogram(const MetricId& id, const Labels& labels) {
  auto& family = impl_->Find(impl_->histograms, component_, id, labels);
  return Histogram(&family.Add(
      labels, prometheus::Histogram::BucketBoundaries(id.buckets.begin(), id.buckets.end())));
}

void Metrics::RemoveGauge(const MetricId& id, const Labels& labels) {
  auto& family = impl_->Find(impl_->gauges, component_, id, labels);
  family.Remove(&family.Add(labels));
}

std::string Metrics::Serialize() const {
  return prometheus::TextSerializer().Serialize(impl_->registry.Collect());
}

}  // namespace expertmesh::telemetry

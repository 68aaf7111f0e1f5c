// Counters, gauges and histograms of one process, in Prometheus' text format. Only what stands in
// metric_catalogue.h can be made; anything else is a mistake of ours and aborts with the names.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <string_view>

#include "services/telemetry/metric_catalogue.h"

namespace prometheus {
class Counter;
class Gauge;
class Histogram;
}  // namespace prometheus

namespace expertmesh::telemetry {

/// Handles: one pointer, copied freely, thread-safe, valid while their Metrics lives. A
/// default-made handle counts nothing.
class Counter {
 public:
  Counter() = default;
  void Add(double amount = 1);  // amount ≥ 0

 private:
  friend class Metrics;
  explicit Counter(prometheus::Counter* counter) : counter_(counter) {}
  prometheus::Counter* counter_ = nullptr;
};

class Gauge {
 public:
  Gauge() = default;
  void Set(double value);
  void Add(double amount);  // may be negative

 private:
  friend class Metrics;
  explicit Gauge(prometheus::Gauge* gauge) : gauge_(gauge) {}
  prometheus::Gauge* gauge_ = nullptr;
};

class Histogram {
 public:
  Histogram() = default;
  void Observe(double value);  // in the metric's unit: seconds, rows, tokens

 private:
  friend class Metrics;
  explicit Histogram(prometheus::Histogram* histogram) : histogram_(histogram) {}
  prometheus::Histogram* histogram_ = nullptr;
};

/// Owned by main, one per process; it outlives everything that holds a handle. Thread-safe.
/// Metrics without labels exist, at 0, from the start, so that alerts can tell 0 from absent.
class Metrics {
 public:
  using Labels = std::map<std::string, std::string>;

  /// One of kComponents; "attention-worker" is read as "attention_worker".
  explicit Metrics(std::string component);
  ~Metrics();
  Metrics(const Metrics&) = delete;
  Metrics& operator=(const Metrics&) = delete;

  /// The series with these labels, made on first use. Takes a lock: get handles once, outside
  /// loops. `labels` has exactly the names in id.labels.
  Counter GetCounter(const MetricId& id, const Labels& labels = {});
  Gauge GetGauge(const MetricId& id, const Labels& labels = {});
  Histogram GetHistogram(const MetricId& id, const Labels& labels = {});

  /// Takes a gauge's series away, e.g. of a peer that left. Its handles must not be used again.
  void RemoveGauge(const MetricId& id, const Labels& labels);

  /// Prometheus text exposition format 0.0.4.
  std::string Serialize() const;

  const std::string& component() const { return component_; }

 private:
  struct Impl;
  std::string component_;
  std::unique_ptr<Impl> impl_;
};

}  // namespace expertmesh::telemetry

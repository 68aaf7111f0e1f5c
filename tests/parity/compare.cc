#include "tests/parity/compare.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

namespace expertmesh::parity {
namespace {

constexpr double kMarginSigma = 0.1;

std::vector<double> LogProbabilities(std::span<const float> logits) {
  const double top = *std::max_element(logits.begin(), logits.end());
  double sum = 0;
  for (const float z : logits) sum += std::exp(z - top);
  std::vector<double> out;
  for (const float z : logits) out.push_back(z - top - std::log(sum));
  return out;
}

double Divergence(std::span<const float> golden, std::span<const float> ours) {
  const std::vector<double> p = LogProbabilities(golden);
  const std::vector<double> q = LogProbabilities(ours);
  double sum = 0;
  for (size_t i = 0; i < p.size(); ++i) sum += std::exp(p[i]) * (p[i] - q[i]);
  return sum;
}

size_t Argmax(std::span<const float> logits) {
  return static_cast<size_t>(std::max_element(logits.begin(), logits.end()) - logits.begin());
}

// How far the most likely token leads the second.
double Lead(std::span<const float> logits) {
  float first = -std::numeric_limits<float>::infinity();
  float second = first;
  for (const float z : logits) {
    second = std::max(second, std::min(first, z));
    first = std::max(first, z);
  }
  return double{first} - double{second};
}

void CompareTokens(const Sequence& golden, const Observed& observed, Deviation& out) {
  const size_t count = golden.tokens.size();
  const size_t vocab = golden.logits.size() / count;
  const double margin = kMarginSigma * Sigma(golden.logits);
  size_t same = 0;
  for (size_t t = 0; t < count; ++t) {
    const auto row = std::span<const float>(golden.logits).subspan(t * vocab, vocab);
    const auto ours = std::span<const float>(observed.logits).subspan(t * vocab, vocab);
    out.mean_kl += Divergence(row, ours) / static_cast<double>(count);
    const bool equal = Argmax(row) == Argmax(ours);
    same += equal ? 1 : 0;
    if (!equal && Lead(row) > margin) ++out.flips_past_margin;
  }
  out.top1 = static_cast<double>(same) / static_cast<double>(count);
}

// Share of (token, layer) whose choice [T, k] is another one.
double Flipped(const std::map<uint32_t, std::vector<int32_t>>& expected,
               const std::map<uint32_t, std::vector<int32_t>>& got, size_t tokens) {
  size_t choices = 0;
  size_t flipped = 0;
  for (const auto& [layer, ids] : expected) {
    const auto ours = got.find(layer);
    const size_t k = ids.size() / tokens;
    choices += tokens;
    if (ours == got.end() || ours->second.size() != ids.size()) {
      flipped += tokens;
      continue;
    }
    for (size_t t = 0; t < tokens; ++t) {
      const auto at = static_cast<std::ptrdiff_t>(t * k);
      const auto end = at + static_cast<std::ptrdiff_t>(k);
      const bool same = std::equal(ids.begin() + at, ids.begin() + end, ours->second.begin() + at);
      flipped += same ? 0 : 1;
    }
  }
  return choices == 0 ? 0.0 : static_cast<double>(flipped) / static_cast<double>(choices);
}

}  // namespace

double Sigma(std::span<const float> values) {
  double sum = 0;
  for (const float v : values) sum += v;
  const double mean = sum / static_cast<double>(values.size());
  double squares = 0;
  for (const float v : values) squares += (v - mean) * (v - mean);
  return std::sqrt(squares / static_cast<double>(values.size()));
}

double WorstInSigma(std::span<const float> expected, std::span<const float> got) {
  if (expected.size() != got.size()) return std::numeric_limits<double>::infinity();
  double worst = 0;
  for (size_t i = 0; i < expected.size(); ++i) {
    const double distance = std::abs(double{expected[i]} - double{got[i]});
    if (!(distance <= worst)) worst = distance;  // takes over NaN too
    if (std::isnan(worst)) return std::numeric_limits<double>::infinity();
  }
  return worst / Sigma(expected);
}

Deviation Compare(const Sequence& golden, const Observed& observed) {
  Deviation out;
  out.logits = WorstInSigma(golden.logits, observed.logits);
  for (const auto& [layer, rows] : golden.hidden) {
    const auto ours = observed.hidden.find(layer);
    const double distance = ours == observed.hidden.end() ? std::numeric_limits<double>::infinity()
                                                          : WorstInSigma(rows, ours->second);
    out.hidden = std::max(out.hidden, distance);
  }
  if (golden.logits.size() == observed.logits.size()) CompareTokens(golden, observed, out);
  out.experts_flipped = Flipped(golden.experts, observed.experts, golden.tokens.size());
  out.positions_flipped = Flipped(golden.positions, observed.positions, golden.tokens.size());
  return out;
}

}  // namespace expertmesh::parity

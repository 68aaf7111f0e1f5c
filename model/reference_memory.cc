// The memory of n-grams as docs/model-family.md §4.0 and §4.5 write it.
#include <cmath>

#include "absl/strings/str_cat.h"
#include "model/kernels/math.h"
#include "model/kernels/reference/reference_kernels.h"
#include "model/reference.h"

namespace expertmesh::model {

// §4.0: row ids [columns] of the token at index t.
std::vector<uint64_t> ReferenceModel::MemoryRows(uint32_t layer, std::span<const uint32_t> tokens,
                                                 size_t t) const {
  const std::string prefix = absl::StrCat("model.layers.", layer, ".engram.");
  const std::vector<int64_t>& classes = integers_.at("model.engram.token_class");
  const std::vector<int64_t>& primes = integers_.at(prefix + "primes");
  const std::vector<int64_t>& multipliers = integers_.at(prefix + "multipliers");
  const EngramConfig& engram = *config_.engram;
  std::vector<uint64_t> rows;
  uint64_t offset = 0;
  for (uint32_t order = 2; order <= engram.max_ngram; ++order) {
    uint64_t hash = 0;
    for (uint32_t back = 0; back < order; ++back) {
      const uint32_t token = back <= t ? tokens[t - back] : engram.pad_token_id;
      hash ^= static_cast<uint64_t>(classes[token]) * static_cast<uint64_t>(multipliers[back]);
    }
    for (uint32_t head = 0; head < engram.n_heads; ++head) {
      const auto prime = static_cast<uint64_t>(primes[rows.size()]);
      rows.push_back(hash % prime + offset);
      offset += prime;
    }
  }
  return rows;
}

// §4.5: X_i += g_i · V for one token.
void ReferenceModel::AddMemory(uint32_t layer, std::span<const uint32_t> tokens, size_t t,
                               std::vector<float>& x) const {
  const std::string prefix = absl::StrCat("model.layers.", layer, ".engram.");
  const StoredMatrix& table = weights_.at(prefix + "embed.weight");
  std::vector<float> e;
  for (const uint64_t id : MemoryRows(layer, tokens, t)) {
    std::vector<float> row(table.columns);
    DecodeRows(table, id, 1, row.data()).IgnoreError();  // Load has seen every row
    e.insert(e.end(), row.begin(), row.end());
  }
  const size_t hidden = config_.hidden_size, n = config_.hc_mult;
  const std::vector<float> kv = reference::Linear(Weight(prefix + "wkv.weight"), e);
  const std::vector<float> q_weight = Weight(prefix + "q_weight");
  const std::vector<float> k_weight = Weight(prefix + "k_weight");
  for (size_t i = 0; i < n; ++i) {
    double product = 0, x_squares = 0, k_squares = 0;
    for (size_t c = 0; c < hidden; ++c) {
      const double xi = x[i * hidden + c], ki = kv[i * hidden + c];
      product += xi * double{q_weight[i * hidden + c]} * double{k_weight[i * hidden + c]} * ki;
      x_squares += xi * xi;
      k_squares += ki * ki;
    }
    const double width = static_cast<double>(hidden), eps = config_.rms_norm_eps;
    const double d = product / std::sqrt(width) / std::sqrt(x_squares / width + eps) /
                     std::sqrt(k_squares / width + eps);
    const double root = std::sqrt(std::max(std::abs(d), 1e-6));
    const float g = Sigmoid(static_cast<float>(d < 0 ? -root : root));
    for (size_t c = 0; c < hidden; ++c) x[i * hidden + c] += g * kv[n * hidden + c];
  }
}

}  // namespace expertmesh::model

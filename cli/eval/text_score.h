// How well logits foretell given tokens, and how far two sets of logits are apart. Pure; sums in
// double.
#pragma once

#include <boost/json/object.hpp>
#include <cstdint>
#include <span>

namespace expertmesh::cli {

/// log Σ exp(logits). Finite logits, at least one.
double LogSumExp(std::span<const float> logits);
/// Index of the largest; of equal ones the first, as greedy decoding takes it.
uint32_t Likeliest(std::span<const float> logits);

/// Weighted over positions.
struct TextScore {
  double weight = 0;    // Σ w
  double nll = 0;       // Σ w · −ln p(token)
  double right = 0;     // Σ w where the token is the likeliest
  uint64_t tokens = 0;  // positions with w > 0

  /// `logits` [vocab] that foretell `token`.
  void Add(std::span<const float> logits, uint32_t token, double w);
  void Add(const TextScore& other);
  double mean_nll() const { return weight > 0 ? nll / weight : 0; }
  double perplexity() const;
  double accuracy() const { return weight > 0 ? right / weight : 0; }
};

/// Of a server from a reference at the same positions.
struct Divergence {
  double weight = 0;
  double kl = 0;       // Σ w · KL(reference ‖ server), in nats
  double kl_max = 0;   // of one position
  double agree = 0;    // Σ w where both have the same likeliest token
  uint64_t equal = 0;  // positions whose logits are equal, bit for bit
  uint64_t tokens = 0;

  void Add(std::span<const float> reference, std::span<const float> server, double w);
  void Add(const Divergence& other);
  double mean_kl() const { return weight > 0 ? kl / weight : 0; }
  double agreement() const { return weight > 0 ? agree / weight : 0; }
};

boost::json::object ScoreJson(const TextScore& score);
boost::json::object DivergenceJson(const Divergence& divergence);

}  // namespace expertmesh::cli

#include "cli/eval/text_score.h"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace expertmesh::cli {

double LogSumExp(std::span<const float> logits) {
  const double most = *std::max_element(logits.begin(), logits.end());
  double sum = 0;
  for (const float logit : logits) sum += std::exp(double{logit} - most);
  return most + std::log(sum);
}

uint32_t Likeliest(std::span<const float> logits) {
  return static_cast<uint32_t>(std::max_element(logits.begin(), logits.end()) - logits.begin());
}

void TextScore::Add(std::span<const float> logits, uint32_t token, double w) {
  if (w <= 0) return;
  weight += w;
  nll += w * (LogSumExp(logits) - double{logits[token]});
  if (Likeliest(logits) == token) right += w;
  ++tokens;
}

void TextScore::Add(const TextScore& other) {
  weight += other.weight;
  nll += other.nll;
  right += other.right;
  tokens += other.tokens;
}

double TextScore::perplexity() const { return std::exp(mean_nll()); }

void Divergence::Add(std::span<const float> reference, std::span<const float> server, double w) {
  if (w <= 0) return;
  const double zr = LogSumExp(reference);
  const double zs = LogSumExp(server);
  double sum = 0;
  for (size_t i = 0; i < reference.size(); ++i) {
    const double p = double{reference[i]} - zr;
    if (std::isinf(p)) continue;  // a token that is never chosen adds 0
    sum += std::exp(p) * (p - (double{server[i]} - zs));
  }
  sum = std::max(sum, 0.0);  // rounding alone can make it negative
  weight += w;
  kl += w * sum;
  kl_max = std::max(kl_max, sum);
  if (Likeliest(reference) == Likeliest(server)) agree += w;
  if (std::memcmp(reference.data(), server.data(), reference.size_bytes()) == 0) ++equal;
  ++tokens;
}

void Divergence::Add(const Divergence& other) {
  weight += other.weight;
  kl += other.kl;
  kl_max = std::max(kl_max, other.kl_max);
  agree += other.agree;
  equal += other.equal;
  tokens += other.tokens;
}

boost::json::object ScoreJson(const TextScore& score) {
  return {{"perplexity", score.perplexity()},
          {"mean_nll", score.mean_nll()},
          {"top1", score.accuracy()},
          {"weight", score.weight},
          {"tokens", score.tokens}};
}

boost::json::object DivergenceJson(const Divergence& divergence) {
  return {{"mean_kl", divergence.mean_kl()},
          {"max_kl", divergence.kl_max},
          {"top1_agreement", divergence.agreement()},
          {"equal_logits", divergence.equal},
          {"tokens", divergence.tokens}};
}

}  // namespace expertmesh::cli

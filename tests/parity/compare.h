// How far two computations of the same tokens are apart.
#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "tests/parity/runner.h"

namespace expertmesh::parity {

/// Standard deviation over all values.
double Sigma(std::span<const float> values);

/// Largest |a − b| over Sigma(a); infinity if the sizes differ or a value is not a number.
double WorstInSigma(std::span<const float> expected, std::span<const float> got);

/// Distances of one computation from a golden.
struct Deviation {
  double logits = 0;             // largest, in σ of the golden's logits
  double hidden = 0;             // largest over layers, each in its own σ
  double mean_kl = 0;            // nats, golden against ours, mean over tokens
  double top1 = 0;               // share of tokens with the same most likely token
  size_t flips_past_margin = 0;  // other top-1 although the golden's lead exceeds 0.1 σ
  double experts_flipped = 0;    // share of (token, layer) with another set of experts
  double positions_flipped = 0;  // share of (token, indexer layer) with other positions
};
Deviation Compare(const Sequence& golden, const Observed& observed);

}  // namespace expertmesh::parity

// The integers of the memory's hash, computed once when a model is written (docs/formats.md §6.2);
// a reader takes them from the file.
#pragma once

#include <cstdint>
#include <vector>

#include "model/config.h"

namespace expertmesh::model {

/// Primes [engram layers][columns]: for each layer in order and each n-gram order the next ones
/// from engram_vocab_size on that no layer has used.
std::vector<std::vector<uint64_t>> EngramPrimes(const EngramConfig& engram);

/// Odd multipliers [max_ngram] of a layer: (num_classes − 1) times one stays below 2^63.
std::vector<uint64_t> EngramMultipliers(const EngramConfig& engram, uint32_t layer);

/// Class of every token where no tokenizer says it: id · num_classes div vocab, which is the
/// identity if there are as many classes as tokens.
std::vector<uint32_t> EvenTokenClasses(uint32_t vocab_size, uint32_t num_classes);

/// Sums of the primes, as engram_num_embeddings holds them.
std::vector<uint64_t> EngramRowCounts(const EngramConfig& engram);

}  // namespace expertmesh::model

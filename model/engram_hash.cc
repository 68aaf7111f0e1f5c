#include "model/engram_hash.h"

#include <set>

#include "absl/strings/str_cat.h"
#include "services/base/status.h"

namespace expertmesh::model {
namespace {

absl::Status Bad(const Checkpoint& checkpoint, const std::string& tensor, const std::string& text) {
  return base::Error(base::Reason::kBadCheckpoint,
                     absl::StrCat(checkpoint.directory(), ": tensor \"", tensor, "\": ", text));
}

absl::Status CheckPrimes(const Checkpoint& checkpoint, const std::string& name,
                         const EngramConfig& engram, size_t place,
                         const std::vector<int64_t>& primes, std::set<int64_t>& used) {
  uint64_t rows = 0;
  for (const int64_t prime : primes) {
    if (prime < 0 || static_cast<uint64_t>(prime) < engram.vocab_size) {
      return Bad(
          checkpoint, name,
          absl::StrCat(prime, " is not above engram_vocab_size - 1 = ", engram.vocab_size - 1));
    }
    if (!used.insert(prime).second) {
      return Bad(checkpoint, name, absl::StrCat(prime, " stands there twice"));
    }
    if (__builtin_add_overflow(rows, static_cast<uint64_t>(prime), &rows)) {
      return Bad(checkpoint, name, "the sum exceeds 2^64");
    }
  }
  if (rows != engram.num_embeddings[place]) {
    return Bad(checkpoint, name,
               absl::StrCat("the sum is ", rows, ", engram_num_embeddings says ",
                            engram.num_embeddings[place]));
  }
  return absl::OkStatus();
}

absl::Status CheckMultipliers(const Checkpoint& checkpoint, const std::string& name,
                              const EngramConfig& engram, const std::vector<int64_t>& multipliers) {
  for (const int64_t m : multipliers) {
    int64_t largest = 0;
    if (m < 1 || m % 2 == 0 ||
        __builtin_mul_overflow(m, static_cast<int64_t>(engram.num_classes) - 1, &largest)) {
      return Bad(checkpoint, name,
                 absl::StrCat(m, " is not odd or (engram_num_classes - 1) times it reaches 2^63"));
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<EngramHash> EngramHash::Load(const Checkpoint& checkpoint, const Config& config) {
  EngramHash hash;
  if (!config.engram) return hash;
  const EngramConfig& engram = *config.engram;
  const std::vector<HashTensorSpec> specs = EngramHashSpecs(config);
  EM_ASSIGN_OR_RETURN(const std::vector<int64_t> classes, checkpoint.Integers(specs[0]));
  for (const int64_t id : classes) {
    if (id < 0 || id >= int64_t{engram.num_classes}) {
      return Bad(checkpoint, specs[0].name,
                 absl::StrCat(id, " is not in [0, ", engram.num_classes, ")"));
    }
    hash.token_class_.push_back(static_cast<uint32_t>(id));
  }
  hash.ngram_ = engram.max_ngram;
  hash.heads_ = engram.n_heads;
  hash.columns_ = engram.columns();
  hash.pad_class_ = hash.token_class_[engram.pad_token_id];
  std::set<int64_t> used;
  for (size_t place = 0; place < engram.layer_ids.size(); ++place) {
    const HashTensorSpec& prime_spec = specs[1 + 2 * place];
    const HashTensorSpec& multiplier_spec = specs[2 + 2 * place];
    EM_ASSIGN_OR_RETURN(const auto primes, checkpoint.Integers(prime_spec));
    EM_RETURN_IF_ERROR(CheckPrimes(checkpoint, prime_spec.name, engram, place, primes, used));
    EM_ASSIGN_OR_RETURN(const auto multipliers, checkpoint.Integers(multiplier_spec));
    EM_RETURN_IF_ERROR(CheckMultipliers(checkpoint, multiplier_spec.name, engram, multipliers));
    LayerTables& tables = hash.layers_.emplace_back();
    uint64_t offset = 0;
    for (const int64_t prime : primes) {
      tables.primes.push_back(static_cast<uint64_t>(prime));
      tables.offsets.push_back(offset);
      offset += static_cast<uint64_t>(prime);
    }
    tables.multipliers.assign(multipliers.begin(), multipliers.end());
  }
  return hash;
}

void EngramHash::Rows(size_t place, std::span<const uint32_t> previous, uint32_t token,
                      uint64_t* out) const {
  const LayerTables& tables = layers_[place];
  uint64_t mix = token_class_[token] * tables.multipliers[0];
  size_t column = 0;
  for (size_t back = 1; back < ngram_; ++back) {
    const uint64_t id =
        back <= previous.size() ? token_class_[previous[previous.size() - back]] : pad_class_;
    mix ^= id * tables.multipliers[back];
    for (size_t head = 0; head < heads_; ++head, ++column) {
      out[column] = mix % tables.primes[column] + tables.offsets[column];
    }
  }
}

}  // namespace expertmesh::model

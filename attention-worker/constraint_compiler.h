// inference.v1.Constraint → a grammar over the model's vocabulary; the latest ones are kept.
#pragma once

#include <list>
#include <memory>
#include <mutex>
#include <string>
#include <utility>

#include "absl/status/statusor.h"
#include "expertmesh/inference/v1/inference.pb.h"
#include "model/grammar/grammar.h"
#include "model/grammar/token_trie.h"
#include "model/tokenizer/tokenizer.h"

namespace expertmesh::attention_worker {

/// Thread-safe.
class ConstraintCompiler {
 public:
  static constexpr size_t kKept = 64;

  /// `vocab_size`: rows of the model.
  ConstraintCompiler(const model::Tokenizer& tokenizer, uint32_t vocab_size);

  /// kInvalidArgument or kSchemaUnsupported, naming the part.
  absl::StatusOr<std::shared_ptr<const model::Grammar>> Compile(
      const inference::v1::Constraint& constraint);

  const std::shared_ptr<const model::TokenTrie>& trie() const { return trie_; }

 private:
  using Kept = std::pair<std::string, std::shared_ptr<const model::Grammar>>;
  const std::shared_ptr<const model::TokenTrie> trie_;
  std::mutex mutex_;
  std::list<Kept> kept_;  // guarded by mutex_; by serialized constraint, latest use first
};

}  // namespace expertmesh::attention_worker

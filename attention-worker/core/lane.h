// The record of one running sequence: its tokens, how to choose the next, when it ends. Enough to
// replay it (docs/architecture.md §9). Pure.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "attention-worker/core/prefix_cache.h"
#include "model/grammar/matcher.h"
#include "model/sampler.h"
#include "services/base/clock.h"
#include "services/base/ids.h"

namespace expertmesh::attention_worker {

struct MemoryPin;  // engram_stores.h

enum class FinishReason { kStop, kLength, kParked };

/// What a caller asked for, checked by CheckRequest.
struct LaneRequest {
  std::vector<uint32_t> prompt;
  model::SamplingParams sampling;
  uint64_t seed = 0;
  uint32_t choice = 0;
  uint32_t top_logprobs = 0;
  uint32_t max_new_tokens = 0;        // 0 = to the end of the context
  std::vector<uint32_t> stop_tokens;  // besides the model's end tokens
  /// What the answer may say; null: anything. `trie`: of the model's vocabulary.
  std::shared_ptr<const model::Grammar> grammar;
  std::shared_ptr<const model::TokenTrie> trie;
  base::Instant deadline = base::kNever;
  std::string tenant;  // whose prefix cache it uses, who may export it
  /// Tokens that were generated elsewhere before; they count as generated.
  std::vector<uint32_t> history;
  uint32_t park_after = 0;  // parks when so many tokens are generated in all; 0 = never
  std::string name;         // unguessable, for ExportLane and to resume it
  std::string record;       // the request as it came, for ExportLane; not read here
  /// Version of the memory's tables that the lane reads, kept by a lease; null without a memory, or
  /// if its tables are in this process.
  std::shared_ptr<const MemoryPin> memory;

  // The debug door.
  std::vector<uint32_t> forced_tokens;
  bool ignore_eos = false;
  uint64_t first_position = 0;
  bool return_logits_hash = false;
  bool return_logits = false;
  bool return_state_hash = false;
  bool bypass_prefix_cache = false;
  /// (position, layer) → experts; [layers][top_k] per position.
  std::map<uint64_t, std::vector<std::vector<uint16_t>>> forced_experts;
};

/// Limits that a request is held against: those of the model, and of this worker's memory.
struct LaneBounds {
  uint32_t vocab_size = 0;
  uint64_t context = 0;               // positions
  uint64_t lane_tokens = UINT64_MAX;  // that all of the worker's pages hold
};

/// kInvalidArgument, or kContextLengthExceeded for what can never fit; fills in max_new_tokens when
/// it is 0.
absl::Status CheckRequest(LaneRequest& request, const LaneBounds& bounds);

class Lane {
 public:
  Lane(base::LaneId id, LaneRequest request);

  base::LaneId id() const { return id_; }
  const LaneRequest& request() const { return request_; }
  const std::vector<uint32_t>& tokens() const { return tokens_; }  // prompt and answer
  size_t generated() const { return tokens_.size() - request_.prompt.size(); }
  size_t length_max() const { return request_.prompt.size() + request_.max_new_tokens; }
  uint64_t PositionOf(size_t index) const { return request_.first_position + index; }
  /// Forced experts of an index, or null.
  const std::vector<std::vector<uint16_t>>* ForcedExperts(size_t index) const;

  /// Whether other lanes of the same tokens may have its state: it has not if selections are
  /// forced.
  bool SharesState() const;
  /// Keeps the keys of its full blocks from now on.
  void KeepBlocks(const BlockKey& root, size_t block_tokens);
  /// nullptr without KeepBlocks.
  const BlockChain* blocks() const { return blocks_ ? &*blocks_ : nullptr; }

  void set_park_after(uint32_t tokens) { park_after_ = tokens; }

  /// Where the answer stands in its grammar; null without one.
  model::Matcher* matcher() { return matcher_ ? &*matcher_ : nullptr; }
  /// A token came that the grammar does not allow (the debug door, a history from elsewhere).
  bool off_grammar() const { return off_grammar_; }

  /// The forced token for the next position, if the debug door names one.
  std::optional<uint32_t> ForcedNext() const;
  /// Takes the next token; says whether the lane ends or parks with it. `end_tokens` are the
  /// model's.
  std::optional<FinishReason> Append(uint32_t token, const std::vector<uint32_t>& end_tokens);

 private:
  const base::LaneId id_;
  const LaneRequest request_;
  std::vector<uint32_t> tokens_;
  uint32_t park_after_ = request_.park_after;
  std::optional<BlockChain> blocks_;
  std::optional<model::Matcher> matcher_;
  bool off_grammar_ = false;
};

}  // namespace expertmesh::attention_worker

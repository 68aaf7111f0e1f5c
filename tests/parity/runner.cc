#include "tests/parity/runner.h"

#include <algorithm>
#include <cstdlib>
#include <iostream>
#include <span>

#include "model/local_experts.h"

namespace expertmesh::parity {
namespace {

template <class T>
T OrDie(absl::StatusOr<T> value) {
  if (!value.ok()) {
    std::cerr << "parity: " << value.status() << std::endl;
    std::abort();
  }
  return *std::move(value);
}

void Append(const model::Trace& trace, Observed& out) {
  for (uint32_t i = 0; i < trace.layers.size(); ++i) {
    const model::Trace::Layer& layer = trace.layers[i];
    auto& hidden = out.hidden[i];
    hidden.insert(hidden.end(), layer.residual.begin(), layer.residual.end());
    if (!layer.positions.empty()) {
      auto& positions = out.positions[i];
      positions.insert(positions.end(), layer.positions.begin(), layer.positions.end());
    }
    if (layer.expert_ids.empty()) continue;
    auto& experts = out.experts[i];
    experts.insert(experts.end(), layer.expert_ids.begin(), layer.expert_ids.end());
  }
}

// The selections of a golden.
struct Forced {
  std::vector<std::vector<std::vector<uint16_t>>> experts;    // [token][layer][k]
  std::vector<std::vector<std::vector<uint64_t>>> positions;  // [token][layer][…]
};

// One lane with room for `tokens`, and the backend that computes its experts.
class Lane {
 public:
  Lane(const model::AttentionModel& model, const model::ExpertSlice& experts, uint64_t start,
       size_t tokens)
      : model_(model),
        pool_(1),
        backend_(experts, pool_),
        pages_(model.lane_state(), tokens / model::kPagePositions + 1),
        state_(pages_),
        start_(start) {
    state_.set_first_position(start);
    if (!state_.Reserve(tokens)) std::abort();
  }

  // Logits [tokens, V] of the next tokens.
  std::vector<float> Step(std::span<const uint32_t> tokens, model::Trace* trace,
                          const Forced* forced) {
    const size_t before = tokens_.size();
    tokens_.insert(tokens_.end(), tokens.begin(), tokens.end());
    std::vector<model::StepRow> rows;
    for (size_t i = before; i < tokens_.size(); ++i) {
      model::StepRow& row = rows.emplace_back();
      row.lane = &state_;
      row.token = tokens_[i];
      row.position = start_ + i;
      row.wants_logits = true;
      row.previous = std::span(tokens_).first(i);
      if (forced == nullptr) continue;
      row.forced_experts = &forced->experts[i];
      row.forced_positions = &forced->positions[i];
    }
    const model::StepResult result = model_.RunStep(rows, backend_, pool_, {trace});
    if (std::count(result.alive.begin(), result.alive.end(), 0) > 0) std::abort();
    return result.logits;
  }

 private:
  const model::AttentionModel& model_;
  base::ThreadPool pool_;
  model::LocalExperts backend_;
  model::PagePool pages_;
  model::LaneState state_;
  uint64_t start_;
  std::vector<uint32_t> tokens_;  // so far
};

// [token, k] of each layer as [token][layer][k], without the −1; other layers stay empty.
template <class T>
std::vector<std::vector<std::vector<T>>> ByToken(
    const std::map<uint32_t, std::vector<int32_t>>& choices, size_t tokens, size_t layers) {
  std::vector<std::vector<std::vector<T>>> forced(tokens);
  for (auto& token : forced) token.resize(layers);
  for (const auto& [layer, ids] : choices) {
    const size_t k = ids.size() / tokens;
    for (size_t at = 0; at < ids.size(); ++at) {
      if (ids[at] >= 0) forced[at / k][layer].push_back(static_cast<T>(ids[at]));
    }
  }
  return forced;
}

uint32_t Argmax(std::span<const float> logits) {
  return static_cast<uint32_t>(std::max_element(logits.begin(), logits.end()) - logits.begin());
}

}  // namespace

Observed RunReference(const model::ReferenceModel& model, const Sequence& sequence) {
  Observed out;
  model::Trace trace;
  out.logits = model.Forward(sequence.tokens, &trace, sequence.start_position);
  Append(trace, out);
  return out;
}

FastRunner::FastRunner(const Golden& golden, const std::string& profile) {
  model::AttentionModel::Options attention;
  attention.directory = golden.checkpoint;
  attention.profile = profile;
  attention.masked_gate_group_zero = golden.masked_gate_group_zero;
  model_ = OrDie(model::AttentionModel::Load(attention));
  model::ExpertSlice::Options experts;
  experts.directory = golden.checkpoint;
  experts.profile = profile;
  experts.masked_gate_group_zero = golden.masked_gate_group_zero;
  experts.experts = {{0, model_->config().n_routed_experts}};
  experts_ = OrDie(model::ExpertSlice::Load(experts));
}

Observed FastRunner::Run(const Sequence& sequence, size_t chunk, bool forced) const {
  const std::span<const uint32_t> tokens(sequence.tokens);
  Lane lane(*model_, *experts_, sequence.start_position, tokens.size());
  const size_t layers = model_->config().num_hidden_layers;
  const Forced choices{ByToken<uint16_t>(sequence.experts, tokens.size(), layers),
                       ByToken<uint64_t>(sequence.positions, tokens.size(), layers)};
  Observed out;
  for (size_t at = 0; at < tokens.size();) {
    const size_t step =
        at < sequence.prompt_length ? std::min(chunk, sequence.prompt_length - at) : size_t{1};
    model::Trace trace;
    const auto logits = lane.Step(tokens.subspan(at, step), &trace, forced ? &choices : nullptr);
    out.logits.insert(out.logits.end(), logits.begin(), logits.end());
    Append(trace, out);
    at += step;
  }
  return out;
}

FastRunner::Greedy FastRunner::Generate(std::span<const uint32_t> prompt, uint64_t start_position,
                                        size_t steps) const {
  const size_t vocab = model_->config().vocab_size;
  Lane lane(*model_, *experts_, start_position, prompt.size() + steps);
  Greedy out;
  std::vector<float> logits = lane.Step(prompt, nullptr, nullptr);
  for (size_t i = 0; i < steps; ++i) {
    const std::span<const float> last = std::span<const float>(logits).last(vocab);
    out.logits.insert(out.logits.end(), last.begin(), last.end());
    out.tokens.push_back(Argmax(last));
    if (i + 1 < steps) logits = lane.Step(std::span(&out.tokens.back(), 1), nullptr, nullptr);
  }
  return out;
}

}  // namespace expertmesh::parity

#include "tests/parity/runner.h"

#include <algorithm>
#include <cstdlib>
#include <iostream>

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
    if (layer.expert_ids.empty()) continue;
    auto& experts = out.experts[i];
    experts.insert(experts.end(), layer.expert_ids.begin(), layer.expert_ids.end());
  }
}

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
                          const std::vector<std::vector<std::vector<uint16_t>>>* forced) {
    std::vector<model::StepRow> rows;
    for (const uint32_t token : tokens) {
      rows.push_back(
          {&state_, token, start_ + done_, true, forced == nullptr ? nullptr : &(*forced)[done_]});
      ++done_;
    }
    const model::StepResult result = model_.RunStep(rows, backend_, pool_, trace);
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
  size_t done_ = 0;
};

// The golden's experts as [token][layer][k]; dense layers stay empty.
std::vector<std::vector<std::vector<uint16_t>>> ForcedExperts(const Sequence& sequence,
                                                              size_t layers) {
  const size_t count = sequence.tokens.size();
  std::vector<std::vector<std::vector<uint16_t>>> forced(count);
  for (auto& token : forced) token.resize(layers);
  for (const auto& [layer, ids] : sequence.experts) {
    const size_t k = ids.size() / count;
    for (size_t t = 0; t < count; ++t) {
      for (size_t i = 0; i < k; ++i) {
        forced[t][layer].push_back(static_cast<uint16_t>(ids[t * k + i]));
      }
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
  const auto choices = ForcedExperts(sequence, model_->config().num_hidden_layers);
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

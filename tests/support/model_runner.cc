#include "tests/support/model_runner.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "model/combine_tree.h"
#include "model/kernels/aligned.h"
#include "model/wire_row.h"

namespace expertmesh::test_support {
namespace {

template <class T>
T OrDie(absl::StatusOr<T> value) {
  if (!value.ok()) {
    std::fprintf(stderr, "%s\n", value.status().ToString().c_str());
    std::abort();
  }
  return std::move(value).value();
}

// Rows that one slice computes, and its answer.
struct SliceWork {
  std::vector<uint32_t> rows;
  std::vector<uint32_t> offsets{0};
  std::vector<uint16_t> ids;
  std::vector<float> weights;
  std::vector<base::PartialNode> partials;
  model::AlignedBytes wire;
  std::vector<float> scales;  // of int8 rows
  std::vector<float> sums;
};

void CollectRow(const model::MoeCall& call, size_t row, std::span<const uint16_t> owners_of_row,
                uint16_t owner, uint32_t expert_count, SliceWork& work) {
  const auto ids = call.expert_ids.subspan(row * call.top_k, call.top_k);
  const auto index = static_cast<uint32_t>(work.rows.size());
  const size_t before = work.ids.size();
  for (size_t i = 0; i < ids.size(); ++i) {
    if (owners_of_row[i] != owner) continue;
    work.ids.push_back(ids[i]);
    work.weights.push_back(call.expert_weights[row * call.top_k + i]);
  }
  if (work.ids.size() == before) return;
  base::FoldRow(index, ids, owners_of_row, owner, expert_count, work.partials);
  work.rows.push_back(static_cast<uint32_t>(row));
  work.offsets.push_back(static_cast<uint32_t>(work.ids.size()));
}

void Compute(const model::MoeCall& call, const model::ExpertSlice& slice, base::ThreadPool& pool,
             SliceWork& work) {
  const model::Dtype wire = slice.profile().wire;
  const size_t row_bytes = call.hidden * model::DtypeBytes(wire);
  std::byte* bytes = work.wire.Resize(work.rows.size() * row_bytes + 64);
  work.scales.clear();
  for (size_t i = 0; i < work.rows.size(); ++i) {
    const auto row = call.rows.subspan(work.rows[i] * call.hidden, call.hidden);
    const float scale = model::ToWire(wire, row, bytes + i * row_bytes);
    if (wire == model::Dtype::kInt8Row) work.scales.push_back(scale);
  }
  work.sums.resize(work.partials.size() * call.hidden);
  slice.Compute({call.layer, work.rows.size(), wire, bytes, work.offsets, work.ids, work.weights,
                 work.partials, work.scales},
                pool, work.sums);
}

}  // namespace

std::unique_ptr<model::AttentionModel> LoadModel(const std::string& directory,
                                                 const std::string& profile,
                                                 const std::string& isa) {
  model::AttentionModel::Options options;
  options.directory = directory;
  options.profile = profile;
  options.isa = isa;
  return OrDie(model::AttentionModel::Load(options));
}

std::unique_ptr<model::ExpertSlice> LoadExperts(const std::string& directory,
                                                const std::string& profile,
                                                std::vector<base::ExpertRange> experts,
                                                const std::string& isa) {
  model::ExpertSlice::Options options;
  options.directory = directory;
  options.profile = profile;
  options.experts = std::move(experts);
  options.isa = isa;
  return OrDie(model::ExpertSlice::Load(options));
}

void SlicedExperts::Finish(uint32_t micro_batch, std::span<float> out, std::span<uint8_t> alive) {
  const model::MoeCall& call = calls_.at(micro_batch);
  struct Part {
    base::PartialNode node;
    const float* sum;
  };
  const uint32_t expert_count = slices_[0]->expert_count();
  std::vector<SliceWork> work(slices_.size());
  std::vector<std::vector<Part>> parts(call.row_count);
  for (uint16_t owner = 0; owner < slices_.size(); ++owner) {
    SliceWork& w = work[owner];
    for (size_t row = 0; row < call.row_count; ++row) {
      if (alive[row] == 0) continue;
      std::vector<uint16_t> owners_of_row;
      for (size_t i = 0; i < call.top_k; ++i) {
        owners_of_row.push_back(owners_[call.expert_ids[row * call.top_k + i]]);
      }
      CollectRow(call, row, owners_of_row, owner, expert_count, w);
    }
    Compute(call, *slices_[owner], pool_, w);
    partials_seen_ += w.partials.size();
    for (size_t p = 0; p < w.partials.size(); ++p) {
      parts[w.rows[w.partials[p].row]].push_back({w.partials[p], w.sums.data() + p * call.hidden});
    }
  }
  for (size_t row = 0; row < call.row_count; ++row) {
    std::sort(parts[row].begin(), parts[row].end(), [](const Part& a, const Part& b) {
      return a.node.first_expert < b.node.first_expert;
    });
    std::vector<base::PartialNode> nodes;
    std::vector<const float*> sums;
    for (const Part& part : parts[row]) {
      nodes.push_back(part.node);
      sums.push_back(part.sum);
    }
    const std::span<float> sum = out.subspan(row * call.hidden, call.hidden);
    if (!running_sum_) {
      model::FinishTree(nodes, sums.data(), expert_count, sum);
      continue;
    }
    std::fill(sum.begin(), sum.end(), 0.0f);
    for (const float* part : sums) {
      for (size_t c = 0; c < sum.size(); ++c) sum[c] += part[c];
    }
  }
}

std::vector<LaneTrace> RunLanes(const model::AttentionModel& model, model::ExpertBackend& experts,
                                base::ThreadPool& pool,
                                std::span<const std::vector<uint32_t>> lanes,
                                std::span<const size_t> chunks, uint64_t first_position,
                                size_t micro_batches) {
  const size_t vocab = model.config().vocab_size;
  size_t pages = 0;
  for (const auto& tokens : lanes) pages += tokens.size() / model::kPagePositions + 1;
  model::PagePool page_pool(model.lane_state(), pages);
  std::vector<std::unique_ptr<model::LaneState>> states;
  for (const auto& tokens : lanes) {
    states.push_back(std::make_unique<model::LaneState>(page_pool));
    states.back()->set_first_position(first_position);
    if (!states.back()->Reserve(tokens.size())) std::abort();
  }
  std::vector<LaneTrace> traces(lanes.size());
  std::vector<size_t> done(lanes.size(), 0);
  for (;;) {
    std::vector<model::StepRow> rows;
    std::vector<size_t> lane_of_row;
    for (size_t i = 0; i < lanes.size(); ++i) {
      const size_t end = std::min(lanes[i].size(), done[i] + chunks[i]);
      for (; done[i] < end; ++done[i]) {
        rows.push_back({states[i].get(), lanes[i][done[i]], first_position + done[i], true, nullptr,
                        std::span(lanes[i]).first(done[i])});
        lane_of_row.push_back(i);
      }
    }
    if (rows.empty()) break;
    const model::StepResult result =
        model.RunStep(rows, experts, pool, {nullptr, nullptr, micro_batches});
    for (size_t r = 0; r < rows.size(); ++r) {
      if (result.alive[r] == 0) std::abort();
      std::vector<uint32_t>& logits = traces[lane_of_row[r]].logits;
      logits.resize(logits.size() + vocab);
      std::memcpy(logits.data() + logits.size() - vocab, result.logits.data() + r * vocab,
                  vocab * sizeof(float));
    }
  }
  for (size_t i = 0; i < lanes.size(); ++i) {
    for (size_t t = 0; t < lanes[i].size(); ++t)
      traces[i].kv_hashes.push_back(states[i]->HashOf(t));
  }
  return traces;
}

}  // namespace expertmesh::test_support

#include "model/expert_slice.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "model/blocks/swiglu.h"
#include "model/combine_tree.h"
#include "model/config.h"
#include "model/fingerprint.h"
#include "model/revision.h"
#include "services/base/hash.h"
#include "services/base/status.h"

namespace expertmesh::model {
namespace {

constexpr size_t kBlockRows = 512;   // rows whose leaves are in memory at a time
constexpr size_t kPartNameMax = 64;  // bytes of a file's name
constexpr size_t kUnitRows = 192;    // entries of one expert that one task computes, at most

// Some entries of one expert.
struct Unit {
  uint16_t expert;
  uint32_t begin;  // in Scratch::order
  uint32_t end;
};

struct ThreadScratch {
  std::vector<float> factors;  // [unit entries], the experts' weights
  std::vector<float> x;        // [unit entries, hidden]
  std::vector<float> hidden;   // [unit entries, 2·width]
  AlignedBytes quantised;      // [unit entries][Int8RowBytes(hidden)], instead of x
  SwiGluInt8Scratch int8;
};

struct Scratch {
  std::vector<float> rows;           // [block rows, hidden], f32
  AlignedBytes quantised;            // [block rows][Int8RowBytes(hidden)], with int8 weights
  std::vector<uint32_t> entry_rows;  // [block entries]
  std::vector<uint32_t> order;       // [block entries], sorted by expert
  std::vector<uint32_t> places;      // [block entries]: where in order
  std::vector<uint32_t> starts;      // [experts + 1]
  std::vector<Unit> units;
  std::vector<float> leaves;  // [block entries, hidden], sorted by expert
  std::vector<ThreadScratch> threads;
};

// A run of rows of a batch with its entries and partials.
struct RowBlock {
  size_t row_begin, row_end;
  size_t entry_begin, entry_end;
  size_t partial_begin, partial_end;
};

// Entries [begin, end) of one expert in equal units, as few as fit.
void CutUnits(uint16_t expert, uint32_t begin, uint32_t end, std::vector<Unit>& units) {
  for (size_t left = (end - begin + kUnitRows - 1) / kUnitRows; left > 0; --left) {
    const auto count = static_cast<uint32_t>((end - begin) / left);
    units.push_back({expert, begin, begin + count});
    begin += count;
  }
}

class LoadedSlice final : public ExpertSlice {
 public:
  static absl::StatusOr<std::unique_ptr<ExpertSlice>> Load(const Options& options);

  void Compute(const ExpertBatch& batch, base::ThreadPool& pool,
               std::span<float> sums) const override;
  bool Hosts(uint32_t expert) const override {
    return expert < slots_.size() && slots_[expert] >= 0;
  }
  bool HasRoutedExperts(uint32_t layer) const override {
    return layer < layers_.size() && !layers_[layer].empty();
  }
  uint32_t hidden_size() const override { return config_.hidden_size; }
  uint32_t expert_count() const override { return config_.n_routed_experts; }
  uint64_t weight_bytes() const override { return arena_.allocated_bytes(); }
  const std::string& revision() const override { return revision_; }
  const Profile& profile() const override { return profile_; }
  const std::string& fingerprint() const override { return fingerprint_; }

 private:
  absl::Status MarkHosted(const std::vector<base::ExpertRange>& ranges);
  absl::Status LoadLayer(const WeightLoader& loader, uint32_t layer);
  absl::Status LoadLayers(const WeightLoader& loader);
  std::string PartName() const;
  void ReadRows(const ExpertBatch& batch, const RowBlock& block) const;
  void SortEntries(const ExpertBatch& batch, const RowBlock& block) const;
  void ComputeLeaves(const ExpertBatch& batch, const RowBlock& block, base::ThreadPool& pool) const;
  void ComputeUnit(const ExpertBatch& batch, const RowBlock& block, const Unit& unit,
                   ThreadScratch& t) const;
  void SumPartials(const ExpertBatch& batch, const RowBlock& block, base::ThreadPool& pool,
                   std::span<float> sums) const;

  Config config_;
  Profile profile_;
  std::string revision_;
  std::string fingerprint_;
  const KernelTable* kernels_ = nullptr;
  WeightArena arena_;
  std::vector<int32_t> slots_;               // [experts]; −1 = not hosted
  std::vector<std::vector<SwiGlu>> layers_;  // [layers][slots]; empty for dense layers
  mutable Scratch scratch_;                  // of the one Compute that may run
};

absl::Status LoadedSlice::MarkHosted(const std::vector<base::ExpertRange>& ranges) {
  slots_.assign(config_.n_routed_experts, -1);
  int32_t slot = 0;
  for (const base::ExpertRange& range : ranges) {
    if (range.end > slots_.size() || range.begin >= range.end) {
      return base::Error(base::Reason::kInvalidArgument,
                         absl::StrCat("slice ", range.begin, "-", range.end,
                                      ": the model has experts 0 to ", slots_.size() - 1));
    }
    for (uint32_t e = range.begin; e < range.end; ++e) {
      if (slots_[e] < 0) slots_[e] = slot++;
    }
  }
  if (slot == 0) {
    return base::Error(base::Reason::kInvalidArgument,
                       "the slice is empty; name experts, e.g. 0-15");
  }
  return absl::OkStatus();
}

absl::Status LoadedSlice::LoadLayer(const WeightLoader& loader, uint32_t layer) {
  std::vector<SwiGlu>& experts = layers_[layer];
  experts.resize(static_cast<size_t>(*std::max_element(slots_.begin(), slots_.end())) + 1);
  for (size_t e = 0; e < slots_.size(); ++e) {
    if (slots_[e] < 0) continue;
    EM_ASSIGN_OR_RETURN(
        experts[static_cast<size_t>(slots_[e])],
        SwiGlu::Load(loader, absl::StrCat("model.layers.", layer, ".mlp.experts.", e, "."),
                     config_.hidden_size, config_.moe_intermediate_size));
  }
  return absl::OkStatus();
}

absl::Status LoadedSlice::LoadLayers(const WeightLoader& loader) {
  layers_.assign(config_.num_hidden_layers, {});
  for (uint32_t layer = 0; layer < config_.num_hidden_layers; ++layer) {
    if (config_.IsMoeLayer(layer)) EM_RETURN_IF_ERROR(LoadLayer(loader, layer));
  }
  return absl::OkStatus();
}

// "experts-0-15": the hosted ids as runs; a long list by its hash.
std::string LoadedSlice::PartName() const {
  std::string runs;
  for (size_t e = 0; e < slots_.size(); ++e) {
    if (!Hosts(static_cast<uint32_t>(e))) continue;
    size_t last = e;
    while (last + 1 < slots_.size() && Hosts(static_cast<uint32_t>(last + 1))) ++last;
    absl::StrAppend(&runs, runs.empty() ? "" : "_", e, "-", last);
    e = last;
  }
  if (runs.size() <= kPartNameMax) return absl::StrCat("experts-", runs);
  base::Sha256 hash;
  hash.Update(runs);
  const auto digest = hash.Finish();
  return absl::StrCat("experts-", base::Hex(std::span(digest).first(8)));
}

absl::StatusOr<std::unique_ptr<ExpertSlice>> LoadedSlice::Load(const Options& options) {
  auto slice = std::make_unique<LoadedSlice>();
  EM_ASSIGN_OR_RETURN(slice->profile_, ParseProfile(options.profile));
  EM_ASSIGN_OR_RETURN(slice->kernels_, KernelsFor(options.isa));
  EM_ASSIGN_OR_RETURN(slice->config_, LoadConfig(options.directory, options.overrides));
  EM_RETURN_IF_ERROR(slice->MarkHosted(options.experts));
  EM_ASSIGN_OR_RETURN(const std::unique_ptr<Checkpoint> checkpoint,
                      Checkpoint::Open(options.directory));
  EM_ASSIGN_OR_RETURN(slice->revision_, checkpoint->Revision(RevisionOptions(
                                            options.masked_gate_group_zero, options.overrides)));
  const PackedKey key{options.directory, slice->revision_, slice->profile_.name, slice->PartName(),
                      options.packed_file_bytes_min};
  EM_RETURN_IF_ERROR(LoadPacked(key, slice->arena_, [&](PackedWeights* packed) {
    return slice->LoadLayers(WeightLoader(*checkpoint, slice->profile_, slice->arena_, packed));
  }));
  slice->fingerprint_ = Fingerprint(slice->profile_, *slice->kernels_);
  return slice;
}

// The block's rows as the Linears take them: quantised, or f32 rounded to the activation type
// (nothing changes if the wire did that already).
void LoadedSlice::ReadRows(const ExpertBatch& batch, const RowBlock& block) const {
  const size_t hidden = config_.hidden_size;
  if (profile_.weights == Profile::Weights::kInt8) {
    const size_t row_bytes = Int8RowBytes(hidden);
    std::byte* records = scratch_.quantised.Resize((block.row_end - block.row_begin) * row_bytes);
    for (size_t r = block.row_begin; r < block.row_end; ++r, records += row_bytes) {
      StoreInt8Record(reinterpret_cast<const int8_t*>(batch.rows + r * hidden), batch.row_scales[r],
                      hidden, records);
    }
    return;
  }
  const size_t count = (block.row_end - block.row_begin) * config_.hidden_size;
  const size_t first = block.row_begin * config_.hidden_size;
  scratch_.rows.resize(count);
  if (batch.row_dtype == Dtype::kF32) {
    std::memcpy(scratch_.rows.data(), batch.rows + first * sizeof(float), count * sizeof(float));
  } else {
    kernels_->widen_bf16(reinterpret_cast<const uint16_t*>(batch.rows) + first, count,
                         scratch_.rows.data());
  }
  RoundActivations(*kernels_, profile_, scratch_.rows.data(), count);
}

// Counting sort of the block's entries by expert, cut into units.
void LoadedSlice::SortEntries(const ExpertBatch& batch, const RowBlock& block) const {
  Scratch& s = scratch_;
  const size_t entries = block.entry_end - block.entry_begin;
  s.entry_rows.resize(entries);
  s.order.resize(entries);
  s.places.resize(entries);
  s.starts.assign(slots_.size() + 1, 0);
  for (size_t row = block.row_begin; row < block.row_end; ++row) {
    for (size_t e = batch.row_offsets[row]; e < batch.row_offsets[row + 1]; ++e) {
      if (!Hosts(batch.expert_ids[e])) {
        std::fprintf(stderr, "expert %u is not hosted: the caller checks this\n",
                     batch.expert_ids[e]);
        std::abort();
      }
      s.entry_rows[e - block.entry_begin] = static_cast<uint32_t>(row - block.row_begin);
      ++s.starts[batch.expert_ids[e] + size_t{1}];
    }
  }
  s.units.clear();
  for (size_t x = 0; x < slots_.size(); ++x) {
    const uint32_t end = s.starts[x] + s.starts[x + 1];
    CutUnits(static_cast<uint16_t>(x), s.starts[x], end, s.units);
    s.starts[x + 1] = end;
  }
  for (size_t e = 0; e < entries; ++e) {
    s.places[e] = s.starts[batch.expert_ids[block.entry_begin + e]]++;
    s.order[s.places[e]] = static_cast<uint32_t>(e);
  }
}

void LoadedSlice::ComputeUnit(const ExpertBatch& batch, const RowBlock& block, const Unit& unit,
                              ThreadScratch& t) const {
  const size_t hidden = config_.hidden_size;
  const size_t count = unit.end - unit.begin;
  const SwiGlu& expert = layers_[batch.layer][static_cast<size_t>(slots_[unit.expert])];
  float* leaves = scratch_.leaves.data() + unit.begin * hidden;
  const auto row_of = [&](size_t i) {
    return size_t{scratch_.entry_rows[scratch_.order[unit.begin + i]]};
  };
  t.factors.resize(count);
  for (size_t i = 0; i < count; ++i) {
    t.factors[i] = batch.expert_weights[block.entry_begin + scratch_.order[unit.begin + i]];
  }
  if (IsInt8Weight(expert.down.dtype)) {
    const size_t row_bytes = Int8RowBytes(hidden);
    std::byte* x = t.quantised.Resize(count * row_bytes);
    for (size_t i = 0; i < count; ++i) {
      std::memcpy(x + i * row_bytes, scratch_.quantised.data() + row_of(i) * row_bytes, row_bytes);
    }
    return ApplySwiGluInt8(*kernels_, expert, x, count, t.factors.data(), leaves, t.int8);
  }
  t.x.resize(count * hidden);
  t.hidden.resize(count * 2 * expert.width());
  for (size_t i = 0; i < count; ++i) {
    std::memcpy(t.x.data() + i * hidden, scratch_.rows.data() + row_of(i) * hidden,
                hidden * sizeof(float));
  }
  ApplySwiGluRows(*kernels_, profile_, expert, t.x.data(), count, leaves, t.hidden.data());
  for (size_t i = 0; i < count; ++i) {
    float* leaf = leaves + i * hidden;
    kernels_->scale(t.factors[i], leaf, hidden, leaf);
  }
}

void LoadedSlice::ComputeLeaves(const ExpertBatch& batch, const RowBlock& block,
                                base::ThreadPool& pool) const {
  const size_t hidden = config_.hidden_size;
  const size_t entries = block.entry_end - block.entry_begin;
  scratch_.leaves.resize(entries * hidden);
  scratch_.threads.resize(static_cast<size_t>(pool.threads()));
  if (scratch_.units.empty()) return;
  const size_t work = entries * hidden * config_.moe_intermediate_size * 3 / scratch_.units.size();
  pool.ParallelFor(scratch_.units.size(), GrainFor(work),
                   [&](size_t begin, size_t end, int thread) {
                     for (size_t u = begin; u < end; ++u) {
                       ComputeUnit(batch, block, scratch_.units[u],
                                   scratch_.threads[static_cast<size_t>(thread)]);
                     }
                   });
}

void LoadedSlice::SumPartials(const ExpertBatch& batch, const RowBlock& block,
                              base::ThreadPool& pool, std::span<float> sums) const {
  const size_t hidden = config_.hidden_size;
  const size_t partials = block.partial_end - block.partial_begin;
  const size_t work = 4 * hidden * (block.entry_end - block.entry_begin) / (partials + 1);
  pool.ParallelFor(partials, GrainFor(work), [&](size_t begin, size_t end, int) {
    std::vector<base::PartialNode> leaves;
    std::vector<const float*> values;
    for (size_t p = block.partial_begin + begin; p < block.partial_begin + end; ++p) {
      const base::PartialNode& node = batch.partials[p];
      leaves.clear();
      values.clear();
      for (size_t e = batch.row_offsets[node.row]; e < batch.row_offsets[node.row + 1]; ++e) {
        const uint16_t id = batch.expert_ids[e];
        if (id < node.first_expert || (id - node.first_expert) >> node.level != 0) continue;
        leaves.push_back({node.row, id, 0});
        values.push_back(scratch_.leaves.data() + scratch_.places[e - block.entry_begin] * hidden);
      }
      SumTree(leaves, values.data(), node, sums.subspan(p * hidden, hidden));
    }
  });
}

void LoadedSlice::Compute(const ExpertBatch& batch, base::ThreadPool& pool,
                          std::span<float> sums) const {
  size_t partial = 0;
  for (size_t row = 0; row < batch.row_count; row += kBlockRows) {
    RowBlock block{row, std::min(row + kBlockRows, batch.row_count), 0, 0, partial, partial};
    block.entry_begin = batch.row_offsets[block.row_begin];
    block.entry_end = batch.row_offsets[block.row_end];
    while (block.partial_end < batch.partials.size() &&
           batch.partials[block.partial_end].row < block.row_end) {
      ++block.partial_end;
    }
    partial = block.partial_end;
    ReadRows(batch, block);
    SortEntries(batch, block);
    ComputeLeaves(batch, block, pool);
    SumPartials(batch, block, pool, sums);
  }
}

}  // namespace

absl::StatusOr<std::unique_ptr<ExpertSlice>> ExpertSlice::Load(const Options& options) {
  return LoadedSlice::Load(options);
}

}  // namespace expertmesh::model

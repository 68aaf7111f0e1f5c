#include "model/fingerprint.h"

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <vector>

#include "model/blocks/rope.h"
#include "model/formats/encode.h"
#include "model/kernels/aligned.h"
#include "model/kernels/bf16.h"
#include "model/kernels/linear.h"
#include "model/kernels/math.h"
#include "model/kernels/pack_int8.h"
#include "services/base/hash.h"
#include "services/base/random.h"

namespace expertmesh::model {
namespace {

// Floats in [−2, 2), the same on every machine.
std::vector<float> FixedInput(uint32_t purpose, size_t count) {
  std::vector<float> values(count);
  for (size_t i = 0; i < count; ++i) {
    const uint32_t bits = base::Philox({0x454Du, purpose}, {static_cast<uint32_t>(i), 0, 0, 0})[0];
    values[i] = static_cast<float>(bits >> 8) * 0x1p-22f - 2.0f;
  }
  return values;
}

class OutputHash {
 public:
  void Add(const std::vector<float>& values) { hash_.Update(std::as_bytes(std::span(values))); }
  void Add(std::string_view text) { hash_.Update(text); }
  std::string Hex() {
    const auto digest = hash_.Finish();
    return base::Hex(std::span(digest).first(8));
  }

 private:
  base::Sha256 hash_;
};

void AddLinear(const KernelTable& kernels, Dtype dtype, OutputHash& hash) {
  constexpr size_t kInputs = 77;
  constexpr size_t kOutputs = 83;
  constexpr size_t kPanels = (kOutputs + kPanelOutputs - 1) / kPanelOutputs;
  const std::vector<float> weights = FixedInput(1, kPanels * kPanelOutputs * kInputs);
  AlignedBytes panels;
  panels.Resize(weights.size() * sizeof(float));
  for (size_t i = 0; i < weights.size(); ++i) {
    if (dtype == Dtype::kF32) {
      reinterpret_cast<float*>(panels.data())[i] = weights[i];
    } else {
      reinterpret_cast<uint16_t*>(panels.data())[i] = NarrowBf16(weights[i]);
    }
  }
  for (const size_t rows : {1, 3, 13}) {
    const std::vector<float> x = FixedInput(2, rows * kInputs);
    std::vector<float> y(rows * kOutputs);
    kernels.linear(
        {panels.data(), dtype, kInputs, kOutputs, x.data(), kInputs, rows, y.data(), kOutputs}, 0,
        kPanels);
    hash.Add(y);
  }
}

// With weights that were stored in this form, as panels of that type.
void AddStoredLinear(const KernelTable& kernels, const MatrixFormat& format, Dtype dtype,
                     OutputHash& hash) {
  constexpr size_t kInputs = 77;
  constexpr size_t kOutputs = 83;
  const std::vector<float> weights = FixedInput(10, kOutputs * kInputs);
  std::vector<std::byte> values(kOutputs * format.RowBytes(kInputs));
  std::vector<std::byte> scales(format.ScaleRows(kOutputs) * format.ScaleRowBytes(kInputs));
  WeightArena arena;
  PackedMatrix packed = arena.NewMatrix(kOutputs, kInputs, dtype);
  const StoredMatrix stored = {"", "", format, kOutputs, kInputs, values, scales};
  if (!EncodeRows(format, weights.data(), kOutputs, kInputs, values.data(), scales.data()).ok() ||
      !PackRows(stored, 0, kOutputs, packed, 0).ok()) {
    std::abort();  // finite, of moderate size
  }
  for (const size_t rows : {1, 3, 13}) {
    const std::vector<float> x = FixedInput(2, rows * kInputs);
    std::vector<float> y(rows * kOutputs);
    LinearRows(kernels, packed, x.data(), kInputs, rows, y.data(), kOutputs);
    hash.Add(y);
  }
}

// Entries [count, width] as a cache of that type holds them.
std::vector<std::byte> Entries(const std::vector<float>& values, Dtype dtype) {
  std::vector<std::byte> bytes(values.size() * DtypeBytes(dtype));
  for (size_t i = 0; i < values.size(); ++i) {
    const uint16_t half = NarrowBf16(values[i]);
    if (dtype == Dtype::kF32) {
      std::memcpy(bytes.data() + i * sizeof(float), &values[i], sizeof(float));
    } else {
      std::memcpy(bytes.data() + i * sizeof(half), &half, sizeof(half));
    }
  }
  return bytes;
}

void AddAttend(const KernelTable& kernels, Dtype kv, OutputHash& hash) {
  constexpr size_t kRank = 87;
  constexpr size_t kWidth = 95;
  constexpr size_t kHeads = 6;
  constexpr size_t kLastKeys = 21;
  std::vector<float> queries(kWidth * kHeadLanes);
  kernels.transpose(FixedInput(3, kHeads * kWidth).data(), kWidth, kHeads, queries.data(),
                    kHeadLanes);
  std::vector<float> maxima(kHeadLanes, -std::numeric_limits<float>::infinity());
  std::vector<float> sums(kHeadLanes);
  std::vector<float> factors(kHeadLanes);
  std::vector<float> context(kRank * kHeadLanes);
  for (const size_t count : {kTileKeys, kLastKeys}) {
    const std::vector<std::byte> rows =
        Entries(FixedInput(static_cast<uint32_t>(4 + count), kTileKeys * kWidth), kv);
    std::vector<const std::byte*> entries;
    for (size_t i = 0; i < count; ++i) {
      entries.push_back(rows.data() + i * kWidth * DtypeBytes(kv));
    }
    const AttendEntries tile{entries.data(), kv, count, kWidth};
    std::vector<float> weights(count * kHeadLanes);
    kernels.attend_scores(tile, 1, queries.data(), 0.125f, weights.data());
    kernels.attend_weights(count, weights.data(), maxima.data(), sums.data(), factors.data());
    kernels.attend_values(tile, 1, weights.data(), count == kTileKeys ? nullptr : factors.data(), 0,
                          kRank, context.size(), context.data());
  }
  maxima.resize(kHeads);
  sums.resize(kHeads);
  std::vector<float> by_head(kHeadLanes * kRank);
  kernels.transpose(context.data(), kHeadLanes, kRank, by_head.data(), kRank);
  by_head.resize(kHeads * kRank);
  hash.Add(maxima);
  hash.Add(sums);
  hash.Add(by_head);
}

void AddIndexScores(const KernelTable& kernels, Dtype kv, OutputHash& hash) {
  constexpr size_t kWidth = 43;
  constexpr size_t kHeads = 6;
  const std::vector<float> queries = FixedInput(7, kHeads * kWidth);
  const std::vector<float> weights = FixedInput(8, kHeads);
  const std::vector<std::byte> keys = Entries(FixedInput(9, kTileKeys * kWidth), kv);
  std::vector<float> scores(kTileKeys);
  std::vector<float> columns(kWidth * kKeyLanes);
  kernels.index_scores({keys.data(), kv, kWidth, kTileKeys, keys.data(), queries.data(),
                        weights.data(), 1, kHeads, 0.125f, scores.data(), kTileKeys,
                        columns.data()});
  hash.Add(scores);
}

void AddElementwise(const KernelTable& kernels, OutputHash& hash) {
  constexpr size_t kCount = 1003;
  const std::vector<float> a = FixedInput(5, kCount);
  const std::vector<float> b = FixedInput(6, kCount);
  std::vector<float> out(kCount);
  kernels.rms_norm(a.data(), b.data(), 1e-6f, kCount, out.data());
  hash.Add(out);
  kernels.silu_mul(a.data(), b.data(), kCount, out.data());
  hash.Add(out);
  kernels.round_bf16(a.data(), kCount, out.data());
  hash.Add(out);
  kernels.add(a.data(), b.data(), kCount, out.data());
  hash.Add(out);
  kernels.scale(0.3f, a.data(), kCount, out.data());
  hash.Add(out);
  kernels.add_scaled(0.7f, b.data(), kCount, out.data());
  hash.Add(out);
  hash.Add({kernels.dot(a.data(), b.data(), kCount)});
  for (size_t i = 0; i < kCount; ++i) out[i] = Sigmoid(4.0f * a[i]);
  hash.Add(out);
}

void AddRope(OutputHash& hash) {
  const Rope rope(10000.0, 64);
  std::vector<float> turns(rope.dims());
  for (const uint64_t position : {0, 1, 63, 4097, 999936}) {
    rope.Turns(position, turns.data());
    hash.Add(turns);
  }
}

}  // namespace

std::string Fingerprint(const Profile& profile, const KernelTable& kernels) {
  OutputHash hash;
  hash.Add(profile.name);
  AddLinear(kernels, Dtype::kF32, hash);
  AddLinear(kernels, Dtype::kBf16, hash);
  if (profile.weights == Profile::Weights::kInt8) {
    for (const MatrixFormat& format :
         {MatrixFormat{ValueFormat::kInt8, ScaleFormat::kF16, 1, kInt8Group},
          MatrixFormat{ValueFormat::kInt4, ScaleFormat::kF16, 1, kInt8Group},
          MatrixFormat{ValueFormat::kE2m1, ScaleFormat::kE8m0, 1, kFp4Block}}) {
      AddStoredLinear(kernels, format, Int8WeightDtype(format), hash);
    }
  }
  if (profile.weights == Profile::Weights::kBf16) {
    const MatrixFormat fp8 = {ValueFormat::kE4m3, ScaleFormat::kF32, 128, 128};
    AddStoredLinear(kernels, fp8, Dtype::kFp8, hash);
  }
  AddAttend(kernels, profile.kv, hash);
  AddIndexScores(kernels, profile.kv, hash);
  AddElementwise(kernels, hash);
  AddRope(hash);
  return hash.Hex();
}

}  // namespace expertmesh::model

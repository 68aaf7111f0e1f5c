// Every golden of a family that this version runs, on every path through one process.
#include <gtest/gtest.h>

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "tests/parity/compare.h"
#include "tests/parity/report.h"

namespace expertmesh::parity {
namespace {

constexpr double kF32Sigma = 2e-4;  // largest |Δ| of logits and hidden states, in σ
// With the golden's selections: mean KL in nats, and tokens that flip although the golden's lead
// exceeds 0.1 σ.
struct Limits {
  double kl;
  size_t flips;
};
constexpr Limits kBf16 = {2e-4, 0};
constexpr Limits kInt8 = {5e-3, 1};
constexpr size_t kGreedySteps = 64;

std::vector<std::string> Names() {
  const auto names = ListGoldens(GoldensDirectory());
  if (names.ok()) return *names;
  std::fprintf(stderr, "%s\n", names.status().ToString().c_str());
  std::exit(1);
}

std::vector<std::pair<std::string, std::string>> Figures(const Deviation& d) {
  return {{"logits", Short(d.logits)},
          {"hidden", Short(d.hidden)},
          {"experts flipped", Short(d.experts_flipped)},
          {"positions flipped", Short(d.positions_flipped)}};
}

std::vector<std::pair<std::string, std::string>> RoundedFigures(const Deviation& d) {
  return {{"mean KL", Short(d.mean_kl)},
          {"top-1 equal", absl::StrCat(static_cast<int>(d.top1 * 1000) / 10.0, " %")},
          {"experts flipped", Short(d.experts_flipped)},
          {"positions flipped", Short(d.positions_flipped)}};
}

class ParityTest : public testing::TestWithParam<std::string> {
 protected:
  void SetUp() override {
    auto golden = LoadGolden(GoldensDirectory(), GetParam());
    ASSERT_TRUE(golden.ok()) << golden.status();
    golden_ = *std::move(golden);
  }

  void ExpectF32(const Sequence& sequence, const Observed& observed, const std::string& path,
                 const std::string& compared) {
    const Deviation d = Compare(sequence, observed);
    EXPECT_LE(d.logits, kF32Sigma) << path << ", " << sequence.name;
    EXPECT_LE(d.hidden, kF32Sigma) << path << ", " << sequence.name;
    EXPECT_EQ(d.experts_flipped, 0) << path << ", " << sequence.name;
    EXPECT_EQ(d.positions_flipped, 0) << path << ", " << sequence.name;
    EXPECT_EQ(d.flips_past_margin, 0u) << path << ", " << sequence.name;
    Report(golden_, path, absl::StrCat(sequence.name, ", ", compared), Figures(d));
  }

  Golden golden_;
};

TEST_P(ParityTest, Reference) {
  const auto model =
      model::ReferenceModel::Load(golden_.checkpoint, golden_.masked_gate_group_zero);
  ASSERT_TRUE(model.ok()) << model.status();
  for (const Sequence& sequence : golden_.sequences) {
    ExpectF32(sequence, RunReference(**model, sequence), "reference",
              absl::StrCat(sequence.tokens.size(), " tokens"));
  }
}

TEST_P(ParityTest, ExactF32) {
  const FastRunner runner(golden_, "exact-f32");
  for (const Sequence& sequence : golden_.sequences) {
    const std::string tokens =
        absl::StrCat("prompt ", sequence.prompt_length, " + ",
                     sequence.tokens.size() - sequence.prompt_length, " decode steps");
    const Observed whole = runner.Run(sequence, sequence.prompt_length);
    ExpectF32(sequence, whole, "exact-f32", tokens);
    for (const size_t chunk : {size_t{1}, size_t{7}}) {
      EXPECT_EQ(runner.Run(sequence, chunk).logits, whole.logits) << "chunk " << chunk;
    }
  }
}

TEST_P(ParityTest, ExactF32GreedyTokens) {
  const FastRunner runner(golden_, "exact-f32");
  for (const Sequence& sequence : golden_.sequences) {
    const size_t steps = std::min(kGreedySteps, sequence.tokens.size() - sequence.prompt_length);
    const std::vector<uint32_t> prompt(
        sequence.tokens.begin(),
        sequence.tokens.begin() + static_cast<std::ptrdiff_t>(sequence.prompt_length));
    const std::vector<uint32_t> expected(
        sequence.tokens.begin() + static_cast<std::ptrdiff_t>(sequence.prompt_length),
        sequence.tokens.begin() + static_cast<std::ptrdiff_t>(sequence.prompt_length + steps));
    EXPECT_EQ(runner.Generate(prompt, sequence.start_position, steps).tokens, expected);
    Report(golden_, "exact-f32", absl::StrCat(sequence.name, ", greedy"),
           {{"tokens equal", absl::StrCat(steps, " of ", steps)}});
  }
}

// A profile that rounds: its distance from the golden, with the golden's selections and with its
// own.
void ExpectRounded(const Golden& golden, const std::string& profile, const Limits& limits) {
  const FastRunner runner(golden, profile);
  for (const Sequence& sequence : golden.sequences) {
    const Deviation forced = Compare(sequence, runner.Run(sequence, 16, true));
    EXPECT_LE(forced.mean_kl, limits.kl) << sequence.name;
    EXPECT_LE(forced.flips_past_margin, limits.flips) << sequence.name;
    EXPECT_EQ(forced.experts_flipped, 0) << "forced choices are taken";
    EXPECT_EQ(forced.positions_flipped, 0) << "forced choices are taken";
    Report(golden, profile, absl::StrCat(sequence.name, ", selections forced"),
           RoundedFigures(forced));
    const Deviation free = Compare(sequence, runner.Run(sequence, 16, false));
    Report(golden, profile, absl::StrCat(sequence.name, ", free"), RoundedFigures(free));
  }
}

TEST_P(ParityTest, Bf16) { ExpectRounded(golden_, "bf16", kBf16); }
TEST_P(ParityTest, Int8) { ExpectRounded(golden_, "int8", kInt8); }

INSTANTIATE_TEST_SUITE_P(Goldens, ParityTest, testing::ValuesIn(Names()),
                         [](const auto& info) { return info.param; });

}  // namespace
}  // namespace expertmesh::parity

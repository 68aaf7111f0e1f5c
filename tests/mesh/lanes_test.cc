// A lane's bits do not depend on what became of it on the way: whether its prompt was in the prefix
// cache, whether it lost its pages and was recomputed, whether it moved to another worker.
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <optional>
#include <random>
#include <thread>

#include "expertmesh/attention/v1/attention.grpc.pb.h"
#include "services/base/crc32c.h"
#include "services/base/status.h"
#include "services/rpc/channel.h"
#include "services/rpc/identity.h"
#include "services/rpc/status.h"
#include "tests/support/local_mesh.h"
#include "tests/support/tiny_model.h"

namespace expertmesh::test_support {
namespace {

using attention::v1::AttentionService;
using attention::v1::ImportLaneRequest;
using attention::v1::LanePart;
using base::Reason;
using inference::v1::GenerateRequest;
using inference::v1::InferenceService;

constexpr uint32_t kSteps = 64;

GenerateRequest Request(uint32_t seed, size_t length) {
  std::mt19937 rng(seed);
  GenerateRequest request;
  auto* prompt = request.add_segments()->mutable_tokens();
  for (size_t i = 0; i < length; ++i) prompt->add_ids(static_cast<uint32_t>(rng() % 512));
  request.set_max_tokens(kSteps);
  request.mutable_sampling()->set_temperature(0.8f);
  request.mutable_sampling()->set_seed(seed);
  request.mutable_debug()->set_ignore_eos(true);
  request.mutable_debug()->set_return_logits_hash(true);
  request.mutable_debug()->set_return_state_hash(true);
  return request;
}

// One worker with all experts, and clients of it.
struct Worker {
  explicit Worker(std::vector<std::string> flags = {}, const std::string& profile = "bf16") {
    MeshSpec spec;
    spec.model = TinyModel("tiny");
    spec.profile = profile;
    spec.attention_flags = std::move(flags);
    mesh.emplace(spec);
    ready = mesh->WaitReady();
    channel = rpc::MakeChannel(mesh->Address("attention"));
    inference = InferenceService::NewStub(channel);
    lanes = AttentionService::NewStub(channel);
  }
  double Metric(const std::string& name) const {
    const std::string page = HttpGet(mesh->AdminAddress("attention"), "/metrics");
    const std::string line = "\nexpertmesh_attention_worker_" + name + " ";
    const size_t at = page.find(line);
    return at == std::string::npos ? -1 : std::strtod(page.c_str() + at + line.size(), nullptr);
  }

  std::optional<LocalMesh> mesh;
  bool ready = false;
  std::shared_ptr<grpc::Channel> channel;
  std::unique_ptr<InferenceService::Stub> inference;
  std::unique_ptr<AttentionService::Stub> lanes;
};

// One call with everything that a client hears.
struct Heard {
  absl::Status status;
  std::optional<inference::v1::Started> started;
  std::vector<uint32_t> tokens;
  std::vector<uint64_t> logits_hashes;
  inference::v1::Finished finished;
};

Heard Call(const Worker& worker, const GenerateRequest& request, const std::string& tenant = "a") {
  grpc::ClientContext context;
  rpc::PrepareClient(context, {.tenant = tenant}, kPatience);
  const auto reader = worker.inference->Generate(&context, request);
  Heard heard;
  inference::v1::GenerateResponse event;
  while (reader->Read(&event)) {
    if (event.has_started()) heard.started = event.started();
    if (event.has_finished()) heard.finished = event.finished();
    if (!event.has_token()) continue;
    heard.tokens.push_back(event.token().id());
    heard.logits_hashes.push_back(event.token().logits_hash());
  }
  heard.status = rpc::FromGrpcStatus(reader->Finish());
  return heard;
}

void ExpectSame(const Heard& expected, const Heard& actual, const std::string& what) {
  ASSERT_TRUE(actual.status.ok()) << what << ": " << actual.status;
  EXPECT_EQ(actual.tokens, expected.tokens) << what;
  EXPECT_EQ(actual.logits_hashes, expected.logits_hashes) << what;
  EXPECT_EQ(std::vector<uint64_t>(actual.finished.state_hashes().begin(),
                                  actual.finished.state_hashes().end()),
            std::vector<uint64_t>(expected.finished.state_hashes().begin(),
                                  expected.finished.state_hashes().end()))
      << what;
}

GenerateRequest Cold(GenerateRequest request) {
  request.mutable_debug()->set_bypass_prefix_cache(true);
  return request;
}

class LaneBitsTest : public testing::TestWithParam<const char*> {};

TEST_P(LaneBitsTest, EveryPrefixHitEqualsAColdRun) {
  Worker worker({"--debug-api", "--kv-pages", "16"}, GetParam());
  ASSERT_TRUE(worker.ready);
  uint64_t hits = 0;
  for (uint32_t seed = 1; seed <= 20; ++seed) {
    // Prompts that share beginnings of any length with earlier ones, and often do not.
    GenerateRequest request = Request(seed % 4, 300);
    auto* ids = request.mutable_segments(0)->mutable_tokens()->mutable_ids();
    ids->Truncate(static_cast<int>(60 + 12 * seed));
    if (seed % 3 == 0) ids->Set(static_cast<int>(10 * seed), 7);
    request.mutable_sampling()->set_seed(seed);
    const Heard cold = Call(worker, Cold(request));
    ASSERT_TRUE(cold.status.ok()) << cold.status;
    EXPECT_EQ(cold.started->cached_prompt_tokens(), 0u);
    const Heard warm = Call(worker, request);
    ExpectSame(cold, warm, "seed " + std::to_string(seed));
    const Heard again = Call(worker, request);
    ExpectSame(cold, again, "again, seed " + std::to_string(seed));
    const auto length = static_cast<uint32_t>(ids->size());
    EXPECT_EQ(again.started->cached_prompt_tokens(), (length - 1) / 64 * 64) << length;
    hits += warm.started->cached_prompt_tokens() + again.started->cached_prompt_tokens();
    if (HasFailure()) return;
  }
  EXPECT_EQ(worker.Metric("prefix_cache_hit_tokens_total"), static_cast<double>(hits));
  EXPECT_GT(worker.Metric("prefix_cache_evictions_total"), 0) << "16 pages were enough";
}

TEST(LanesTest, ATenantNeverHitsAnothersPrefix) {
  Worker worker({"--debug-api"});
  ASSERT_TRUE(worker.ready);
  const GenerateRequest request = Request(5, 200);
  EXPECT_EQ(Call(worker, request, "a").started->cached_prompt_tokens(), 0u);
  EXPECT_EQ(Call(worker, request, "b").started->cached_prompt_tokens(), 0u);
  EXPECT_EQ(Call(worker, request, "a").started->cached_prompt_tokens(), 192u);
}

TEST(LanesTest, WithoutPrefixCacheNothingIsKept) {
  Worker worker({"--debug-api", "--no-prefix-cache"});
  ASSERT_TRUE(worker.ready);
  for (int run = 0; run < 2; ++run) {
    EXPECT_EQ(Call(worker, Request(5, 200)).started->cached_prompt_tokens(), 0u);
  }
  EXPECT_EQ(worker.Metric("prefix_cache_pages"), 0);
}

TEST_P(LaneBitsTest, PreemptionAtEverySeventhStepChangesNoBit) {
  constexpr uint32_t kLanes = 6;
  std::vector<Heard> expected(kLanes);
  {
    Worker quiet({"--debug-api"}, GetParam());
    ASSERT_TRUE(quiet.ready);
    for (uint32_t i = 0; i < kLanes; ++i) expected[i] = Call(quiet, Cold(Request(i, 40 + 50 * i)));
  }
  for (const bool cached : {false, true}) {
    Worker worker({"--debug-api", "--debug-preempt-every", "7", "--max-batch", "2"}, GetParam());
    ASSERT_TRUE(worker.ready);
    std::vector<Heard> heard(kLanes);
    std::vector<std::thread> clients;
    for (uint32_t i = 0; i < kLanes; ++i) {
      clients.emplace_back([&, i] {
        const GenerateRequest request = Request(i, 40 + 50 * i);
        heard[i] = Call(worker, cached ? request : Cold(request));
      });
    }
    for (std::thread& client : clients) client.join();
    for (uint32_t i = 0; i < kLanes; ++i) {
      ExpectSame(expected[i], heard[i], "lane " + std::to_string(i) + (cached ? ", cached" : ""));
    }
    EXPECT_GT(worker.Metric("preemptions_total"), 20);
  }
}

std::vector<LanePart> Export(const Worker& from, const std::string& lane, absl::Status& status,
                             bool park = false, const std::string& tenant = "a") {
  grpc::ClientContext context;
  rpc::PrepareClient(context, {.tenant = tenant}, kPatience);
  attention::v1::ExportLaneRequest request;
  request.set_lane(lane);
  request.set_park(park);
  const auto reader = from.lanes->ExportLane(&context, request);
  std::vector<LanePart> parts;
  attention::v1::ExportLaneResponse response;
  while (reader->Read(&response)) parts.push_back(response.part());
  status = rpc::FromGrpcStatus(reader->Finish());
  return parts;
}

absl::StatusOr<std::string> Import(const Worker& to, const std::vector<LanePart>& parts) {
  grpc::ClientContext context;
  rpc::PrepareClient(context, {.tenant = "a"}, kPatience);
  attention::v1::ImportLaneResponse response;
  const auto writer = to.lanes->ImportLane(&context, &response);
  for (const LanePart& part : parts) {
    ImportLaneRequest request;
    *request.mutable_part() = part;
    if (!writer->Write(request)) break;
  }
  writer->WritesDone();
  const absl::Status status = rpc::FromGrpcStatus(writer->Finish());
  if (!status.ok()) return status;
  return response.lane();
}

GenerateRequest Resume(const std::string& lane, uint32_t park_after) {
  GenerateRequest request;
  request.set_resume_lane(lane);
  request.set_park_after_tokens(park_after);
  return request;
}

TEST_P(LaneBitsTest, MovingToAnotherWorkerAtEveryStepChangesNoBit) {
  const Worker here({"--debug-api"}, GetParam());
  const Worker there({"--debug-api"}, GetParam());
  ASSERT_TRUE(here.ready && there.ready);
  for (const size_t length : {1, 63, 150}) {
    GenerateRequest request = Request(9, length);
    const Heard expected = Call(here, Cold(request));
    request.set_park_after_tokens(1);
    Heard heard = Call(here, request);
    ASSERT_TRUE(heard.status.ok()) << heard.status;
    EXPECT_EQ(heard.finished.reason(), inference::v1::FINISH_REASON_PARKED);
    std::string lane = heard.started->lane();
    for (uint32_t step = 1; step < kSteps; ++step) {
      const Worker& from = step % 2 == 1 ? here : there;
      const Worker& to = step % 2 == 1 ? there : here;
      absl::Status exported;
      const std::vector<LanePart> parts = Export(from, lane, exported);
      ASSERT_TRUE(exported.ok()) << exported;
      EXPECT_EQ(parts.at(0).record().positions(), length + step - 1);
      const auto imported = Import(to, parts);
      ASSERT_TRUE(imported.ok()) << imported.status();
      Export(from, lane, exported);
      EXPECT_EQ(base::ReasonOf(exported), Reason::kLaneNotFound) << "it is still there";
      lane = *imported;
      const Heard turn = Call(to, Resume(lane, step + 1 == kSteps ? 0 : step + 1));
      ASSERT_TRUE(turn.status.ok()) << turn.status;
      EXPECT_FALSE(turn.started);
      ASSERT_EQ(turn.tokens.size(), 1u);
      heard.tokens.push_back(turn.tokens[0]);
      heard.logits_hashes.push_back(turn.logits_hashes[0]);
      heard.finished = turn.finished;
    }
    EXPECT_EQ(heard.finished.reason(), inference::v1::FINISH_REASON_LENGTH);
    EXPECT_EQ(heard.finished.prompt_tokens(), length);
    EXPECT_EQ(heard.finished.completion_tokens(), kSteps);
    ExpectSame(expected, heard, "prompt of " + std::to_string(length));
  }
}

TEST(LanesTest, ARunningLaneParksWhenAnExportAsksForIt) {
  Worker worker({"--debug-api"});
  ASSERT_TRUE(worker.ready);
  const GenerateRequest request = Request(3, 100);
  const Heard expected = Call(worker, Cold(request));
  grpc::ClientContext context;
  rpc::PrepareClient(context, {.tenant = "a"}, kPatience);
  const auto reader = worker.inference->Generate(&context, request);
  inference::v1::GenerateResponse event;
  ASSERT_TRUE(reader->Read(&event));
  const std::string lane = event.started().lane();
  absl::Status exported;
  const std::vector<LanePart> parts = Export(worker, lane, exported, true);
  Heard heard;
  while (reader->Read(&event)) {
    if (event.has_finished()) heard.finished = event.finished();
    if (event.has_token()) heard.tokens.push_back(event.token().id());
  }
  ASSERT_TRUE(reader->Finish().ok());
  if (heard.finished.reason() == inference::v1::FINISH_REASON_LENGTH) {
    // It was done before the export came.
    EXPECT_EQ(base::ReasonOf(exported), Reason::kLaneNotFound);
    return;
  }
  ASSERT_TRUE(exported.ok()) << exported;
  EXPECT_EQ(heard.finished.reason(), inference::v1::FINISH_REASON_PARKED);
  const auto imported = Import(worker, parts);
  ASSERT_TRUE(imported.ok()) << imported.status();
  const Heard rest = Call(worker, Resume(*imported, 0));
  heard.tokens.insert(heard.tokens.end(), rest.tokens.begin(), rest.tokens.end());
  EXPECT_EQ(heard.tokens, expected.tokens);
}

TEST(LanesTest, ALaneThatIsNotWholeOrNotOursIsRefused) {
  const Worker worker({"--debug-api"});
  const Worker other({"--debug-api"}, "exact-f32");
  ASSERT_TRUE(worker.ready && other.ready);
  GenerateRequest request = Request(3, 100);
  request.set_park_after_tokens(2);
  const Heard parked = Call(worker, request);
  ASSERT_TRUE(parked.status.ok()) << parked.status;
  const std::string lane = parked.started->lane();
  absl::Status status;
  Export(worker, lane, status, false, "b");
  EXPECT_EQ(base::ReasonOf(status), Reason::kLaneNotFound) << "another tenant's";
  Export(worker, "", status);
  EXPECT_EQ(base::ReasonOf(status), Reason::kLaneNotFound);
  EXPECT_EQ(base::ReasonOf(Call(worker, Resume(lane, 2)).status), Reason::kInvalidArgument);
  EXPECT_EQ(base::ReasonOf(Call(worker, Resume(lane, 0), "b").status), Reason::kLaneNotFound);
  const std::vector<LanePart> parts = Export(worker, lane, status);
  ASSERT_TRUE(status.ok()) << status;
  ASSERT_EQ(parts.size(), 3u);  // the record, a full page, the begun one

  const double used = worker.Metric("kv_pages_used");
  const auto reason = [&](const std::vector<LanePart>& bad, const Worker& to) {
    return base::ReasonOf(Import(to, bad).status());
  };
  EXPECT_EQ(reason(parts, other), Reason::kProfileMismatch);
  EXPECT_EQ(reason({}, worker), Reason::kFrameMalformed);
  EXPECT_EQ(reason({parts[0], parts[1]}, worker), Reason::kFrameMalformed);
  EXPECT_EQ(reason({parts[1], parts[2]}, worker), Reason::kFrameMalformed);
  EXPECT_EQ(reason({parts[0], parts[2], parts[1]}, worker), Reason::kFrameMalformed);
  EXPECT_EQ(reason({parts[0], parts[0]}, worker), Reason::kFrameMalformed);
  EXPECT_EQ(reason({parts[0], parts[1], parts[2], parts[2]}, worker), Reason::kFrameMalformed);
  std::vector<LanePart> bad = parts;
  (*bad[1].mutable_chunk()->mutable_data())[17] ^= 4;
  EXPECT_EQ(reason(bad, worker), Reason::kFrameChecksum);
  bad = parts;
  bad[0].mutable_record()->mutable_model()->set_revision("another");
  EXPECT_EQ(reason(bad, worker), Reason::kModelNotFound);
  bad = parts;
  bad[0].mutable_record()->mutable_lane_state(0)->set_bytes_per_position(12);
  EXPECT_EQ(reason(bad, worker), Reason::kFrameMalformed);
  bad = parts;
  bad[0].mutable_record()->set_positions(1000);
  EXPECT_EQ(reason(bad, worker), Reason::kFrameMalformed);
  bad = parts;
  bad[0].mutable_record()->set_generated(0, 4000000000u);
  EXPECT_EQ(reason(bad, worker), Reason::kInvalidArgument);
  // Nothing of them is left, and the good one still goes in.
  const auto imported = Import(worker, parts);
  ASSERT_TRUE(imported.ok()) << imported.status();
  EXPECT_EQ(Call(worker, Resume(*imported, 0)).tokens.size(), kSteps - 2);
  EXPECT_EQ(worker.Metric("kv_pages_used"), used);
}

INSTANTIATE_TEST_SUITE_P(Profiles, LaneBitsTest, testing::Values("exact-f32", "bf16"),
                         [](const auto& info) {
                           return std::string(info.param) == "bf16" ? "bf16" : "f32";
                         });

}  // namespace
}  // namespace expertmesh::test_support

// The token path through all five processes, and what an expert worker refuses.
#include <gtest/gtest.h>

#include <cstdlib>
#include <functional>

#include "expertmesh/expert/v1/expert.grpc.pb.h"
#include "services/base/crc32c.h"
#include "services/base/status.h"
#include "services/rpc/channel.h"
#include "services/rpc/status.h"
#include "services/transport/frame.h"
#include "tests/support/http_client.h"
#include "tests/support/local_mesh.h"
#include "tests/support/tiny_model.h"

namespace expertmesh::test_support {
namespace {

using base::Reason;

uint64_t CounterOf(const LocalMesh& mesh, const std::string& worker, const std::string& series) {
  const std::string page = HttpGet(mesh.AdminAddress(worker), "/metrics");
  const std::string name = "\nexpertmesh_expert_worker_" + series + " ";
  const size_t at = page.find(name);
  return at == std::string::npos ? 0 : std::strtoull(page.c_str() + at + name.size(), nullptr, 10);
}
uint64_t RowsOf(const LocalMesh& mesh, const std::string& worker) {
  return CounterOf(mesh, worker, "rows_total");
}

TEST(PathTest, AStreamedAnswerUsesEveryExpertWorker) {
  MeshSpec spec;
  spec.model = TinyModel();
  spec.slices = {"0-15", "16-23", "24-31"};
  spec.gateway = true;
  spec.engram = true;
  LocalMesh mesh(spec);
  ASSERT_TRUE(mesh.WaitReady());
  std::vector<uint64_t> before;
  for (int i = 0; i < 3; ++i) before.push_back(RowsOf(mesh, "expert-" + std::to_string(i)));
  const HttpResponse answer = HttpPost(
      mesh.HttpAddress(), "/v1/chat/completions",
      R"({"model":"tiny-v3","stream":true,"max_tokens":8,"stream_options":{"include_usage":true},)"
      R"("messages":[{"role":"user","content":"Explain MoE architecture"}]})");
  EXPECT_EQ(answer.status, 200);
  EXPECT_NE(answer.header.find("text/event-stream"), std::string::npos);
  EXPECT_NE(answer.body.find("\"role\":\"assistant\""), std::string::npos);
  EXPECT_NE(answer.body.find("\"choices\":[],\"usage\":{\"prompt_tokens\""), std::string::npos);
  EXPECT_TRUE(answer.body.ends_with("data: [DONE]\n\n")) << answer.body;
  for (int i = 0; i < 3; ++i) {
    EXPECT_GT(RowsOf(mesh, "expert-" + std::to_string(i)), before[i]) << "expert-" << i;
  }
}

TEST(PathTest, ReplicasOfAPoolShareItsLoad) {
  MeshSpec spec;
  spec.model = TinyModel();
  spec.slices = {"0-15", "0-15", "16-31", "16-31"};
  spec.gateway = true;
  LocalMesh mesh(spec);
  ASSERT_TRUE(mesh.WaitReady());  // with one replica of each pool
  for (int i = 0; i < 4; ++i) {
    ASSERT_TRUE(mesh.WaitPeer("attention", "expert-" + std::to_string(i)));
  }
  std::vector<uint64_t> before;
  for (int i = 0; i < 4; ++i) before.push_back(RowsOf(mesh, "expert-" + std::to_string(i)));
  const HttpResponse answer = HttpPost(
      mesh.HttpAddress(), "/v1/completions",
      R"({"model":"tiny-v3","prompt":"Explain MoE","max_tokens":64,"temperature":1,"seed":1})");
  ASSERT_EQ(answer.status, 200) << answer.body;
  std::vector<uint64_t> rows;
  for (int i = 0; i < 4; ++i) {
    rows.push_back(RowsOf(mesh, "expert-" + std::to_string(i)) - before[i]);
  }
  for (int pool = 0; pool < 4; pool += 2) {
    const uint64_t all = rows[pool] + rows[pool + 1];
    EXPECT_GT(4 * rows[pool], all) << rows[pool] << " of " << all;  // more than a quarter
    EXPECT_GT(4 * rows[pool + 1], all) << rows[pool + 1] << " of " << all;
  }
}

TEST(PathTest, AGapKeepsTheMeshUnreadyAndNamesTheExperts) {
  MeshSpec spec;
  spec.model = TinyModel();
  spec.slices = {"0-14", "17-31"};
  spec.gateway = true;
  LocalMesh mesh(spec);
  ASSERT_TRUE(mesh.WaitView([](const router::v1::View& view) {
    int told = 0;
    for (const auto& m : view.members()) {
      told += m.report().reason().find("15-16") != std::string::npos ? 1 : 0;
    }
    return view.missing_experts_size() == 1 && view.missing_experts(0).begin() == 15 &&
           view.missing_experts(0).end() == 17 && told == 2;
  }));
  for (const char* name : {"attention", "gateway"}) {
    const std::string page = HttpGet(mesh.AdminAddress(name), "/readyz");
    EXPECT_NE(page.find("503"), std::string::npos) << page;
    EXPECT_NE(page.find("15-16"), std::string::npos) << page;
  }
}

/// Raw frames to a real expert worker, on one stream.
class RawDispatch {
 public:
  explicit RawDispatch(const std::string& address)
      : stub_(expert::v1::ExpertService::NewStub(rpc::MakeChannel(address))) {
    context_.set_deadline(std::chrono::system_clock::now() + kPatience);
    expert::v1::DescribeRequest ask;
    grpc::ClientContext describe;
    describe.set_deadline(std::chrono::system_clock::now() + kPatience);
    describe.set_wait_for_ready(true);
    described_ok_ = stub_->Describe(&describe, ask, &described_).ok();
    frames_ = expert::v1::ExpertService::NewStub(rpc::MakeChannel(described_.frames_address()));
    stream_ = frames_->Dispatch(&context_);
  }

  bool described_ok() const { return described_ok_; }

  /// A good frame: one row for two hosted experts.
  transport::DispatchFrame Frame(std::vector<uint16_t> experts = {1, 3}) {
    std::vector<float> row(64, 0.25f);
    std::vector<base::PartialNode> nodes;
    base::FoldRow(0, experts, std::vector<uint16_t>(experts.size(), 0), 0, 32, nodes);
    transport::DispatchHeader header;
    header.set_call_id(++call_);
    header.set_layer(1);
    *header.mutable_epoch() = described_.epoch();
    *header.mutable_model() = described_.model();
    header.set_profile(described_.profile());
    header.add_lane_row_counts(1);
    header.add_lane_budgets_us(1u << 30);
    const std::vector<uint32_t> index = {0};
    const std::vector<uint32_t> offsets = {0, static_cast<uint32_t>(experts.size())};
    return transport::BuildDispatch(header, row, row.size(), index, base::Dtype::kBf16, offsets,
                                    experts, std::vector<float>(experts.size(), 0.5f), nodes,
                                    *buffers_);
  }

  /// Sends and returns the answer's reason; kUnspecified for sums.
  Reason Send(const transport::DispatchFrame& frame) {
    expert::v1::DispatchRequest request;
    *request.mutable_header() = frame.header;
    request.set_payload(frame.payload.data(), frame.payload.size());
    expert::v1::DispatchResponse response;
    if (!stream_->Write(request) || !stream_->Read(&response)) return Reason::kPeerLost;
    EXPECT_EQ(response.header().call_id(), frame.header.call_id());
    if (!response.header().has_status()) {
      EXPECT_EQ(response.payload().size(), 64 * sizeof(float));
      return Reason::kUnspecified;
    }
    return base::ReasonOf(rpc::FromRpcStatus(response.header().status()));
  }
  Reason Spoilt(const std::function<void(transport::DispatchFrame&)>& spoil) {
    transport::DispatchFrame frame = Frame();
    spoil(frame);
    return Send(frame);
  }

 private:
  const std::unique_ptr<expert::v1::ExpertService::Stub> stub_;
  std::unique_ptr<expert::v1::ExpertService::Stub> frames_;
  grpc::ClientContext context_;
  bool described_ok_ = false;
  expert::v1::DescribeResponse described_;
  std::unique_ptr<
      grpc::ClientReaderWriter<expert::v1::DispatchRequest, expert::v1::DispatchResponse>>
      stream_;
  std::shared_ptr<transport::BufferPool> buffers_ = std::make_shared<transport::BufferPool>();
  uint64_t call_ = 0;
};

TEST(ExpertRefusalTest, EveryBadFrameGetsItsReasonAndTheStreamGoesOn) {
  MeshSpec spec;
  spec.model = TinyModel();
  spec.slices = {"0-15", "16-31"};
  LocalMesh mesh(spec);
  ASSERT_TRUE(mesh.WaitReady());
  RawDispatch raw(mesh.Address("expert-0"));
  ASSERT_TRUE(raw.described_ok());
  EXPECT_EQ(raw.Send(raw.Frame()), Reason::kUnspecified);
  EXPECT_EQ(raw.Send(raw.Frame({1, 16})), Reason::kExpertNotHosted);
  EXPECT_EQ(raw.Send(raw.Frame({40})), Reason::kFrameMalformed);  // outside of the tree
  EXPECT_EQ(raw.Spoilt([](auto& f) { f.header.set_protocol_version(7); }), Reason::kFrameVersion);
  EXPECT_EQ(raw.Spoilt([](auto& f) { f.header.set_row_count(2); }), Reason::kFrameMalformed);
  EXPECT_EQ(raw.Spoilt([](auto& f) { f.header.set_payload_bytes(1); }), Reason::kFrameMalformed);
  EXPECT_EQ(raw.Spoilt([](auto& f) { *f.payload.data() ^= std::byte{1}; }), Reason::kFrameChecksum);
  EXPECT_EQ(raw.Spoilt([](auto& f) { f.header.set_layer(0); }), Reason::kFrameMalformed);
  EXPECT_EQ(raw.Spoilt([](auto& f) { f.header.mutable_model()->set_revision("x"); }),
            Reason::kModelNotFound);
  EXPECT_EQ(raw.Spoilt([](auto& f) { f.header.set_profile("fp4"); }), Reason::kProfileMismatch);
  EXPECT_EQ(raw.Spoilt([](auto& f) { f.header.mutable_epoch()->set_term(0); }),
            Reason::kEpochStale);
  EXPECT_EQ(raw.Spoilt([](auto& f) { f.header.mutable_epoch()->set_content_hash(1); }),
            Reason::kEpochMismatch);
  EXPECT_EQ(raw.Spoilt([](auto& f) {
    auto* bits = reinterpret_cast<uint16_t*>(f.payload.data());
    bits[0] = 0x7FC0;
    f.header.set_payload_crc32c(base::Crc32c(f.payload.span()));
  }),
            Reason::kNonFinite);
  // Oversized: a header that promises more than a frame may hold.
  EXPECT_EQ(raw.Spoilt([](auto& f) { f.header.set_row_count(0x7FFFFFFF); }),
            Reason::kFrameMalformed);
  EXPECT_EQ(raw.Send(raw.Frame()), Reason::kUnspecified);
  // Bytes that are wrong count as bad input, a wrong address or moment does not.
  const auto bad = [&](const std::string& reason) {
    return CounterOf(mesh, "expert-0", "bad_input_total{reason=\"" + reason + "\"}");
  };
  EXPECT_EQ(bad("FRAME_VERSION"), 1u);
  EXPECT_EQ(bad("FRAME_CHECKSUM"), 1u);
  EXPECT_EQ(bad("FRAME_MALFORMED"), 5u);
  EXPECT_EQ(bad("NON_FINITE"), 1u);
  EXPECT_EQ(bad("EXPERT_NOT_HOSTED"), 0u);
  EXPECT_EQ(bad("EPOCH_STALE"), 0u);
}

}  // namespace
}  // namespace expertmesh::test_support

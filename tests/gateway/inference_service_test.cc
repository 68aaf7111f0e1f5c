// inference.v1 as internal clients see it at the gateway.
#include "gateway/inference_service.h"

#include <grpcpp/channel.h>

#include "services/base/status.h"
#include "services/rpc/channel.h"
#include "services/rpc/identity.h"
#include "services/rpc/status.h"
#include "tests/gateway/gateway_fixture.h"

namespace expertmesh::gateway {
namespace {

using base::Error;
using base::Reason;
using inference::v1::GenerateRequest;
using inference::v1::GenerateResponse;
using testing::ElementsAreArray;

constexpr auto kBudget = std::chrono::minutes(1);

class InferenceServiceTest : public GatewayTest {
 protected:
  InferenceServiceTest() {
    mesh_->OnView(View());
    server_ = rpc::Server::Start({}, {&service_}).value();
    stub_ = inference::v1::InferenceService::NewStub(rpc::MakeChannel(server_->address()));
  }
  ~InferenceServiceTest() override { server_->Shutdown(std::chrono::milliseconds(0)); }

  struct Answer {
    std::vector<GenerateResponse> events;
    absl::Status status;
  };
  Answer Generate(const GenerateRequest& request, const rpc::Identity& identity = {}) {
    grpc::ClientContext context;
    rpc::PrepareClient(context, identity, kBudget);
    const auto reader = stub_->Generate(&context, request);
    Answer answer;
    for (GenerateResponse event; reader->Read(&event);) answer.events.push_back(event);
    answer.status = rpc::FromGrpcStatus(reader->Finish());
    return answer;
  }
  static GenerateRequest TextRequest(const std::string& text) {
    GenerateRequest request;
    request.add_segments()->mutable_text()->set_text(text);
    return request;
  }

  InferenceService service_{api_};
  std::unique_ptr<rpc::Server> server_;
  std::unique_ptr<inference::v1::InferenceService::Stub> stub_;
};

TEST_F(InferenceServiceTest, TextIsTokenizedAndTokensGetTheirText) {
  worker_.Follow(Says(Ids("😀!")));
  GenerateRequest request = TextRequest("Hello <｜User｜>");
  request.add_segments()->mutable_tokens()->add_ids(7);
  request.mutable_sampling()->set_seed(9);
  const Answer answer = Generate(request, {.request_id = "r-1"});
  EXPECT_TRUE(answer.status.ok()) << answer.status;

  const GenerateRequest heard = worker_.last_request();
  ASSERT_EQ(heard.segments_size(), 2);
  EXPECT_THAT(heard.segments(0).tokens().ids(), ElementsAreArray(Ids("Hello <｜User｜>")));
  EXPECT_EQ(heard.segments(1).tokens().ids(0), 7u);
  EXPECT_EQ(heard.model().model(), kModel);
  EXPECT_EQ(heard.request_id(), "r-1");
  EXPECT_EQ(heard.sampling().seed(), 9u);
  EXPECT_EQ(worker_.last_metadata("x-request-id"), "r-1");

  std::string text;
  for (const GenerateResponse& event : answer.events) text += event.token().text();
  EXPECT_EQ(text, "😀!");
  EXPECT_TRUE(answer.events.front().has_started());
  EXPECT_TRUE(answer.events.back().has_finished());
}

TEST_F(InferenceServiceTest, Refusals) {
  GenerateRequest other = TextRequest("x");
  other.mutable_model()->set_model("other");
  EXPECT_EQ(base::ReasonOf(Generate(other).status), Reason::kModelNotFound);
  EXPECT_EQ(base::ReasonOf(Generate(TextRequest("x"), {.request_id = "no spaces"}).status),
            Reason::kBadMetadata);
  GenerateRequest named = TextRequest("x");
  for (const std::string& id : {std::string("no spaces"), std::string(129, 'a')}) {
    named.set_request_id(id);
    EXPECT_EQ(base::ReasonOf(Generate(named).status), Reason::kInvalidArgument) << id;
  }
  named.set_request_id(std::string(128, 'a'));
  EXPECT_TRUE(Generate(named).status.ok());
  GenerateRequest segments = TextRequest("x");
  segments.add_segments();
  const absl::Status empty = Generate(segments).status;
  EXPECT_EQ(base::ReasonOf(empty), Reason::kInvalidArgument);
  EXPECT_THAT(std::string(empty.message()), testing::HasSubstr("segments[1]"));
  segments.mutable_segments(1)->mutable_media()->set_position_count(1);
  EXPECT_EQ(base::ReasonOf(Generate(segments).status), Reason::kUnsupported);
  mesh_->OnView(View([](router::v1::View& view) { view.clear_members(); }));
  EXPECT_EQ(base::ReasonOf(Generate(TextRequest("x")).status), Reason::kNoAttentionWorker);

  grpc::ClientContext no_deadline;
  const auto reader = stub_->Generate(&no_deadline, TextRequest("x"));
  GenerateResponse event;
  EXPECT_FALSE(reader->Read(&event));
  EXPECT_EQ(base::ReasonOf(rpc::FromGrpcStatus(reader->Finish())), Reason::kDeadlineRequired);
}

TEST_F(InferenceServiceTest, TheWorkersReasonPasses) {
  worker_.Follow({.events = {StartedEvent(2)},
                  .end = Error(Reason::kExpertsUnavailable, "gone", {{"experts", "3"}})});
  const Answer answer = Generate(TextRequest("x"));
  EXPECT_EQ(answer.events.size(), 1u);
  EXPECT_EQ(base::ReasonOf(answer.status), Reason::kExpertsUnavailable);
  EXPECT_EQ(base::MetadataOf(answer.status).at("experts"), "3");
}

TEST_F(InferenceServiceTest, ManyEventsPassInOrder) {
  Script script = Says({Ids("a").front()});
  script.events.pop_back();
  script.repeat_last = 5000;
  script.end = Error(Reason::kDraining, "");
  worker_.Follow(script);
  EXPECT_EQ(Generate(TextRequest("x")).events.size(), 5002u);
}

TEST_F(InferenceServiceTest, ACancelledCallEndsTheWorkers) {
  worker_.Follow({.events = {StartedEvent(2)}, .hang = true});
  grpc::ClientContext context;
  rpc::PrepareClient(context, {}, kBudget);
  const auto reader = stub_->Generate(&context, TextRequest("x"));
  GenerateResponse event;
  ASSERT_TRUE(reader->Read(&event));
  context.TryCancel();
  EXPECT_TRUE(worker_.WaitForCancelled(1));
  while (reader->Read(&event)) {
  }
  EXPECT_EQ(reader->Finish().error_code(), grpc::StatusCode::CANCELLED);
}

TEST_F(InferenceServiceTest, ListModels) {
  grpc::ClientContext context;
  rpc::PrepareClient(context, {}, kBudget);
  inference::v1::ListModelsResponse response;
  ASSERT_TRUE(stub_->ListModels(&context, {}, &response).ok());
  ASSERT_EQ(response.models_size(), 1);
  EXPECT_EQ(response.models(0).model().model(), kModel);
  EXPECT_EQ(response.models(0).model().revision(), "0123456789abcdef");
  EXPECT_EQ(response.models(0).context_length(), kContext);
  EXPECT_EQ(response.models(0).profile(), "bf16");
}

}  // namespace
}  // namespace expertmesh::gateway

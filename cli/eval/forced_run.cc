#include "cli/eval/forced_run.h"

#include <chrono>
#include <utility>

#include "absl/strings/str_cat.h"
#include "services/base/status.h"
#include "services/rpc/channel.h"
#include "services/rpc/identity.h"
#include "services/rpc/status.h"

namespace expertmesh::cli {
namespace {

namespace pb = inference::v1;
using base::Error;
using base::Reason;

constexpr size_t kRevisionShown = 12;

}  // namespace

absl::StatusOr<ForcedRequest> RequestOf(const ScoredText& text) {
  size_t first = 1;
  size_t end = text.tokens.size();
  while (first < end && text.weights[first] <= 0) ++first;
  while (end > first && text.weights[end - 1] <= 0) --end;
  if (first == end) {
    return Error(Reason::kInvalidArgument, "no token behind the first has a weight above 0");
  }
  ForcedRequest forced;
  forced.first = first;
  pb::GenerateRequest& request = forced.request;
  auto& prompt = *request.add_segments()->mutable_tokens()->mutable_ids();
  prompt.Add(text.tokens.begin(), text.tokens.begin() + static_cast<ptrdiff_t>(first));
  request.set_max_tokens(static_cast<uint32_t>(end - first));
  pb::DebugOptions& debug = *request.mutable_debug();
  debug.mutable_forced_tokens()->Add(text.tokens.begin() + static_cast<ptrdiff_t>(first),
                                     text.tokens.begin() + static_cast<ptrdiff_t>(end));
  debug.set_ignore_eos(true);
  debug.set_return_logits(true);
  debug.set_bypass_prefix_cache(true);
  return forced;
}

absl::StatusOr<std::unique_ptr<InferenceServer>> InferenceServer::Open(const std::string& address,
                                                                       const std::string& model,
                                                                       uint32_t timeout_s) {
  std::unique_ptr<InferenceServer> server(new InferenceServer);
  server->address_ = address;
  server->timeout_s_ = timeout_s;
  server->stub_ = pb::InferenceService::NewStub(rpc::MakeChannel(address));
  grpc::ClientContext context;
  rpc::PrepareClient(context, {}, std::chrono::seconds(timeout_s));
  pb::ListModelsResponse models;
  const absl::Status status = rpc::FromGrpcStatus(server->stub_->ListModels(&context, {}, &models));
  if (absl::IsUnimplemented(status)) {
    return Error(Reason::kUnsupported, address + ": does not speak inference.v1");
  }
  if (!status.ok()) return base::Annotate(status, address + ": ");
  for (const pb::ServedModel& served : models.models()) {
    if (!model.empty() && served.model().model() != model) continue;
    if (server->served_.has_model()) {
      return Error(Reason::kInvalidArgument, absl::StrCat(address,
                                                          ": several models are served; name one: "
                                                          "--served-model-name"));
    }
    server->served_ = served;
  }
  if (!server->served_.has_model()) {
    return Error(Reason::kModelNotFound, absl::StrCat(address, ": the model is not served here"));
  }
  return server;
}

std::string InferenceServer::Description() const {
  return absl::StrCat(model(), " revision ", served_.model().revision().substr(0, kRevisionShown),
                      " profile ", served_.profile());
}

absl::Status InferenceServer::Score(const ScoredText& text, const TakeLogits& take) const {
  EM_ASSIGN_OR_RETURN(ForcedRequest forced, RequestOf(text));
  forced.request.mutable_model()->set_model(model());
  const auto wanted = static_cast<size_t>(forced.request.debug().forced_tokens_size());
  grpc::ClientContext context;
  rpc::PrepareClient(context, {}, std::chrono::seconds(timeout_s_));
  const auto reader = stub_->Generate(&context, forced.request);
  pb::GenerateResponse event;
  size_t index = forced.first;
  absl::Status bad;
  while (bad.ok() && reader->Read(&event)) {
    if (!event.has_token()) continue;
    const pb::Token& token = event.token();
    if (index >= text.tokens.size() || token.id() != text.tokens[index]) {
      bad = Error(Reason::kInternal, absl::StrCat("token ", index, " came back as ", token.id()));
    } else if (token.logits_size() <= static_cast<int>(token.id())) {
      bad = Error(Reason::kInternal, absl::StrCat("token ", index, " came without its logits"));
    } else {
      take(index++, {token.logits().data(), static_cast<size_t>(token.logits_size())});
    }
  }
  if (!bad.ok()) context.TryCancel();
  const absl::Status ended = rpc::FromGrpcStatus(reader->Finish());
  if (bad.ok()) bad = ended;
  if (bad.ok() && index != forced.first + wanted) {
    bad = Error(Reason::kInternal, absl::StrCat("the answer ended after ", index - forced.first,
                                                " of ", wanted, " tokens"));
  }
  return base::Annotate(bad, address_ + ": ");
}

}  // namespace expertmesh::cli

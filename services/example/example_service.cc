#include "services/example/example_service.h"

#include "services/base/status.h"
#include "services/example/core/word_count.h"
#include "services/rpc/identity.h"
#include "services/rpc/status.h"

namespace expertmesh::example {
namespace {

absl::Status Count(const grpc::ServerContextBase& context, const v1::CountWordsRequest& request,
                   v1::CountWordsResponse& response) {
  EM_RETURN_IF_ERROR(rpc::RequireDeadline(context));
  EM_RETURN_IF_ERROR(rpc::IdentityOf(context).status());
  EM_ASSIGN_OR_RETURN(const uint32_t words, CountWords(request.text()));
  response.set_word_count(words);
  return absl::OkStatus();
}

}  // namespace

grpc::ServerUnaryReactor* ExampleService::CountWords(grpc::CallbackServerContext* context,
                                                     const v1::CountWordsRequest* request,
                                                     v1::CountWordsResponse* response) {
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  reactor->Finish(rpc::ToGrpcStatus(Count(*context, *request, *response)));
  return reactor;
}

}  // namespace expertmesh::example

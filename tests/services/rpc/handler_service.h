// example.v1.ExampleService with a handler that the test writes, and a client's side of it.
#pragma once

#include <chrono>
#include <functional>
#include <string>

#include "expertmesh/example/v1/example.grpc.pb.h"
#include "services/rpc/channel.h"
#include "services/rpc/identity.h"

namespace expertmesh::rpc {

inline constexpr std::chrono::seconds kCallBudget(30);

class HandlerService final : public example::v1::ExampleService::CallbackService {
 public:
  using Handler = std::function<grpc::Status(const grpc::ServerContextBase& context)>;
  explicit HandlerService(Handler handler) : handler_(std::move(handler)) {}

  grpc::ServerUnaryReactor* CountWords(grpc::CallbackServerContext* context,
                                       const example::v1::CountWordsRequest* request,
                                       example::v1::CountWordsResponse* response) override {
    response->set_word_count(static_cast<uint32_t>(request->text().size()));
    grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
    reactor->Finish(handler_(*context));
    return reactor;
  }

 private:
  const Handler handler_;
};

/// One call on a channel; 0 in `word_count` if it failed.
struct Answer {
  grpc::Status status;
  uint32_t word_count = 0;
};
inline Answer Call(grpc::ChannelInterface& channel, grpc::ClientContext& context,
                   const std::string& text) {
  const auto stub = example::v1::ExampleService::NewStub(
      std::shared_ptr<grpc::ChannelInterface>(std::shared_ptr<void>(), &channel));
  example::v1::CountWordsRequest request;
  request.set_text(text);
  example::v1::CountWordsResponse response;
  Answer answer;
  answer.status = stub->CountWords(&context, request, &response);
  if (answer.status.ok()) answer.word_count = response.word_count();
  return answer;
}

}  // namespace expertmesh::rpc

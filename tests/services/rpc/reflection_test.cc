// Reflection tells what a server offers. Its messages come from the descriptor pool: Debian ships
// no header.
#include <google/protobuf/descriptor.h>
#include <google/protobuf/descriptor.pb.h>
#include <google/protobuf/message.h>
#include <google/protobuf/util/json_util.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>

#include "services/rpc/server.h"
#include "tests/services/rpc/unary_call.h"

namespace expertmesh::rpc {
namespace {

constexpr char kMethod[] = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo";

std::unique_ptr<google::protobuf::Message> NewMessage(const std::string& name) {
  const auto* descriptor =
      google::protobuf::DescriptorPool::generated_pool()->FindMessageTypeByName(
          "grpc.reflection.v1alpha." + name);
  if (descriptor == nullptr) return nullptr;
  auto* factory = google::protobuf::MessageFactory::generated_factory();
  return std::unique_ptr<google::protobuf::Message>(factory->GetPrototype(descriptor)->New());
}

// One question on a stream of its own.
struct Asker final : grpc::ClientBidiReactor<grpc::ByteBuffer, grpc::ByteBuffer> {
  void OnReadDone(bool ok) override {
    if (!ok) return;
    StartWritesDone();
    answered = true;
  }
  void OnDone(const grpc::Status& status) override { done.set_value(status); }
  bool answered = false;
  std::promise<grpc::Status> done;
};

// The answer to a ServerReflectionRequest, both as JSON; "" if there is none.
std::string Reflect(const std::string& address, const std::string& question) {
  const auto request = NewMessage("ServerReflectionRequest");
  const auto response = NewMessage("ServerReflectionResponse");
  if (!request || !google::protobuf::util::JsonStringToMessage(question, request.get()).ok()) {
    return "";
  }
  grpc::GenericStub stub(MakeChannel(address));
  grpc::ClientContext context;
  PrepareClient(context, {}, kCallBudget);
  Asker asker;
  const grpc::ByteBuffer sent = ToBytes(*request);
  grpc::ByteBuffer received;
  stub.PrepareBidiStreamingCall(&context, kMethod, grpc::StubOptions(), &asker);
  asker.StartWrite(&sent);
  asker.StartRead(&received);
  asker.StartCall();
  const grpc::Status status = asker.done.get_future().get();
  if (!status.ok() || !asker.answered || !FromBytes(received, *response)) return "";
  std::string json;
  (void)google::protobuf::util::MessageToJsonString(*response, &json);
  return json;
}

TEST(Reflection, ListsAndDescribesTheServices) {
  HandlerService service([](const auto&) { return grpc::Status::OK; });
  const auto server = Server::Start({}, {&service});
  ASSERT_TRUE(server.ok());
  const std::string list = Reflect((*server)->address(), R"({"listServices": "*"})");
  for (const char* name : {"expertmesh.example.v1.ExampleService", "grpc.health.v1.Health",
                           "grpc.reflection.v1alpha.ServerReflection"}) {
    EXPECT_NE(list.find(name), std::string::npos) << name << " in " << list;
  }
  for (const char* name : {"expertmesh.example.v1.ExampleService", "grpc.health.v1.Health"}) {
    const std::string file =
        Reflect((*server)->address(), std::string(R"({"fileContainingSymbol": ")") + name + "\"}");
    EXPECT_NE(file.find("fileDescriptorProto"), std::string::npos) << name << " in " << file;
  }
  const std::string unknown =
      Reflect((*server)->address(), R"({"fileContainingSymbol": "no.such.Service"})");
  EXPECT_NE(unknown.find("errorResponse"), std::string::npos) << unknown;
}

}  // namespace
}  // namespace expertmesh::rpc

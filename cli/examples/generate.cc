// The smallest client of inference.v1 in C++: a prompt in, the answer as it comes, the reason of an
// error. Only gRPC and the generated code; nothing else of this repository.
//
//   expertmesh-example-generate ADDRESS MODEL PROMPT      e.g. 127.0.0.1:7000 tiny "Once upon a
//   time"
#include <grpcpp/grpcpp.h>

#include <chrono>
#include <iostream>
#include <string>

#include "expertmesh/inference/v1/inference.grpc.pb.h"
#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"

namespace inference = expertmesh::inference::v1;

namespace {

// Errors carry a machine-readable reason in google.rpc.ErrorInfo: act on that, never on the text.
std::string ReasonOf(const grpc::Status& status) {
  google::rpc::Status details;
  google::rpc::ErrorInfo info;
  if (!details.ParseFromString(status.error_details())) return "UNSPECIFIED";
  for (const auto& detail : details.details()) {
    if (detail.UnpackTo(&info)) return info.reason();
  }
  return "UNSPECIFIED";
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 4) {
    std::cerr << "usage: " << argv[0] << " ADDRESS MODEL PROMPT\n";
    return 2;
  }
  const auto channel = grpc::CreateChannel(argv[1], grpc::InsecureChannelCredentials());
  const auto stub = inference::InferenceService::NewStub(channel);

  grpc::ClientContext context;
  // Every call needs a deadline: calls without one are refused with DEADLINE_REQUIRED.
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(60));

  inference::GenerateRequest request;
  request.mutable_model()->set_model(argv[2]);
  request.add_segments()->mutable_text()->set_text(argv[3]);  // the gateway tokenizes
  request.mutable_sampling()->set_temperature(0.7f);
  request.mutable_sampling()->set_seed(1);  // the same seed gives the same answer
  request.set_max_tokens(32);

  const auto reader = stub->Generate(&context, request);
  inference::GenerateResponse event;
  while (reader->Read(&event)) {
    if (event.has_token()) std::cout << event.token().text() << std::flush;
    if (event.has_finished()) {
      std::cerr << "\n" << event.finished().completion_tokens() << " tokens";
    }
  }
  const grpc::Status status = reader->Finish();
  std::cerr << "\n";
  if (status.ok()) return 0;
  std::cerr << ReasonOf(status) << ": " << status.error_message() << "\n";
  return 1;
}

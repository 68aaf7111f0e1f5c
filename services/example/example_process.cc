#include "services/example/example_process.h"

#include <utility>

#include "services/base/status.h"

namespace expertmesh::example {

absl::StatusOr<std::unique_ptr<ExampleProcess>> ExampleProcess::Start(const std::string& listen,
                                                                      lifecycle::Process& process,
                                                                      telemetry::Metrics& metrics) {
  std::unique_ptr<ExampleProcess> example(new ExampleProcess());
  EM_ASSIGN_OR_RETURN(example->server_,
                      rpc::Server::Start({listen, &metrics}, {&example->service_}));
  EM_RETURN_IF_ERROR(process.Announce(example->address()));
  // The server outlives WaitForShutdown, which returns after this callback.
  process.OnDrain([server = example->server_.get()] { server->SetServing(false); });
  example->server_->SetServing(true);
  process.SetReady();
  return example;
}

}  // namespace expertmesh::example

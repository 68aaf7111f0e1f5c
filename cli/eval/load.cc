#include <boost/json/serialize.hpp>
#include <chrono>
#include <ostream>

#include "absl/strings/str_cat.h"
#include "cli/eval/eval_input.h"
#include "cli/eval/expert_load.h"
#include "cli/eval_commands.h"
#include "expertmesh/expert/v1/expert.grpc.pb.h"
#include "services/base/status.h"
#include "services/rpc/channel.h"
#include "services/rpc/identity.h"
#include "services/rpc/status.h"

namespace expertmesh::cli {
namespace {

namespace pb = expert::v1;

constexpr uint32_t kExpertsMax = 1 << 16;  // ids have 16 bits on the wire

absl::Status AddWorker(const std::string& address, const LoadOptions& options,
                       std::string& revision, ExpertLoad& load) {
  const auto stub = pb::ExpertService::NewStub(rpc::MakeChannel(address));
  grpc::ClientContext context;
  rpc::PrepareClient(context, {}, std::chrono::seconds(options.timeout_s));
  pb::DescribeRequest request;
  request.set_load(true);
  pb::DescribeResponse worker;
  const absl::Status asked = rpc::FromGrpcStatus(stub->Describe(&context, request, &worker));
  if (!asked.ok()) return base::Annotate(asked, address + ": ");
  if (revision.empty()) revision = worker.model().revision();
  if (revision != worker.model().revision()) {
    return base::Error(base::Reason::kInvalidArgument,
                       absl::StrCat(address, ": hosts revision ", worker.model().revision(),
                                    ", the others ", revision));
  }
  std::vector<uint32_t> hosted;
  for (const auto& range : worker.experts()) {
    if (range.end() > kExpertsMax) {
      return base::Error(base::Reason::kInternal,
                         absl::StrCat(address, ": hosts an expert ", range.end() - 1));
    }
    for (uint32_t e = range.begin(); e < range.end(); ++e) hosted.push_back(e);
  }
  for (const pb::LayerLoad& layer : worker.load()) {
    if (static_cast<size_t>(layer.expert_rows_size()) != hosted.size()) {
      return base::Error(base::Reason::kInternal,
                         absl::StrCat(address, ": counts of ", layer.expert_rows_size(),
                                      " experts, but hosts ", hosted.size()));
    }
    for (int i = 0; i < layer.expert_rows_size(); ++i) {
      load.Add(layer.layer(), hosted[static_cast<size_t>(i)], layer.expert_rows(i));
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status EvalLoad(const LoadOptions& options, const Output& output) {
  ExpertLoad load;
  std::string revision;
  for (const std::string& address : options.experts) {
    EM_RETURN_IF_ERROR(AddWorker(address, options, revision, load));
  }
  output.out << load.Text();
  if (options.json.empty()) return absl::OkStatus();
  boost::json::object report = load.Json();
  report["revision"] = revision;
  return WriteReport(options.json, std::string(boost::json::serialize(report)) + "\n");
}

}  // namespace expertmesh::cli

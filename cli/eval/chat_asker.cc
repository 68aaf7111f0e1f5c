#include "cli/eval/chat_asker.h"

#include <boost/json/array.hpp>
#include <boost/json/object.hpp>
#include <boost/json/serialize.hpp>
#include <chrono>
#include <memory>
#include <ostream>
#include <utility>

#include "absl/strings/str_cat.h"
#include "cli/eval/chat_answer.h"
#include "cli/eval/work.h"
#include "services/base/status.h"

namespace expertmesh::cli {
namespace {

namespace json = boost::json;
using base::Reason;

absl::Status Refused(const http::Response& response) {
  return base::Error(response.status >= 500 ? Reason::kPeerLost : Reason::kInvalidArgument,
                     absl::StrCat("HTTP ", response.status, ": ", ErrorTextOf(response.body)));
}

}  // namespace

absl::StatusOr<ChatAsker> ChatAsker::Open(const ChatAskOptions& options) {
  ChatAsker asker;
  asker.options_ = options;
  EM_ASSIGN_OR_RETURN(asker.url_, http::ParseUrl(options.url));
  if (!asker.url_.prefix.ends_with("/v1")) asker.url_.prefix += "/v1";
  if (!options.model.empty()) return asker;
  http::Client client(asker.url_, std::chrono::seconds(options.timeout_s));
  EM_ASSIGN_OR_RETURN(const http::Response response, client.Get("/models"));
  if (response.status != 200) return base::Annotate(Refused(response), options.url + ": ");
  auto model = OnlyModelOf(response.body);
  if (!model.ok()) return base::Annotate(model.status(), options.url + ": ");
  asker.options_.model = *std::move(model);
  return asker;
}

absl::StatusOr<std::vector<std::string>> ChatAsker::Ask(std::span<const std::string> prompts,
                                                        const std::string& what,
                                                        std::ostream& err) const {
  std::vector<std::string> answers(prompts.size());
  std::vector<std::unique_ptr<http::Client>> clients(options_.concurrency);
  for (auto& client : clients) {
    client = std::make_unique<http::Client>(url_, std::chrono::seconds(options_.timeout_s));
  }
  Tally tally(err, what, prompts.size());
  EM_RETURN_IF_ERROR(ForEachAtOnce(
      prompts.size(), options_.concurrency, [&](unsigned worker, size_t i) -> absl::Status {
        const json::object message{{"role", "user"}, {"content", prompts[i]}};
        const json::object request{{"model", options_.model},
                                   {"messages", json::array{message}},
                                   {"temperature", 0},
                                   {"max_tokens", options_.max_tokens}};
        EM_ASSIGN_OR_RETURN(
            const http::Response response,
            clients[worker]->PostJson("/chat/completions", std::string(json::serialize(request))));
        if (response.status != 200) return Refused(response);
        EM_ASSIGN_OR_RETURN(answers[i], AnswerOfCompletion(response.body));
        tally.Done();
        return absl::OkStatus();
      }));
  return answers;
}

}  // namespace expertmesh::cli

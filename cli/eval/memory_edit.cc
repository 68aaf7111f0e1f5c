#include <boost/json/serialize.hpp>
#include <memory>
#include <ostream>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "cli/eval/edit_plan.h"
#include "cli/eval/edit_report.h"
#include "cli/eval/engram_editor.h"
#include "cli/eval/lane_stream.h"
#include "cli/eval/name_exchange.h"
#include "cli/eval_commands.h"
#include "cli/stop_flag.h"
#include "model/checkpoint.h"
#include "model/config.h"
#include "model/revision.h"
#include "model/tokenizer/chat_encoding.h"
#include "services/base/status.h"

namespace expertmesh::cli {
namespace {

using base::Error;
using base::Reason;

constexpr size_t kLaneTokensBefore = 3;  // read before the publish
constexpr size_t kWrongMax = 10;

// What the gateway knows about the model, read from the same directory.
class ServedModel {
 public:
  static absl::StatusOr<ServedModel> Load(const MemoryEditOptions& options) {
    ServedModel served;
    EM_ASSIGN_OR_RETURN(const auto overrides, model::ConfigOverrides::Parse(options.overrides));
    EM_ASSIGN_OR_RETURN(served.config_, model::LoadConfig(options.model, overrides));
    if (!served.config_.engram) {
      return Error(Reason::kModelHasNoMemory, options.model + ": the model has no memory");
    }
    EM_ASSIGN_OR_RETURN(const auto checkpoint, model::Checkpoint::Open(options.model));
    EM_ASSIGN_OR_RETURN(served.hash_, model::EngramHash::Load(*checkpoint, served.config_));
    EM_ASSIGN_OR_RETURN(served.revision_,
                        checkpoint->Revision(model::RevisionOptions(false, overrides)));
    EM_ASSIGN_OR_RETURN(served.tokenizer_, model::Tokenizer::Load(options.model));
    const model::ChatFamily family{.model_type = served.config_.model_type,
                                   .chat_template = model::LoadChatTemplate(options.model)};
    EM_ASSIGN_OR_RETURN(served.encoding_,
                        model::ChatEncodingFromFlag(options.encoding, family, *served.tokenizer_));
    EM_ASSIGN_OR_RETURN(
        served.texts_,
        model::LoadChatTexts(options.model, model::ChatEncodingName(served.encoding_)));
    return served;
  }

  /// The prompt of a question, then an answer.
  absl::StatusOr<std::vector<uint32_t>> Tokens(const std::string& prompt,
                                               const std::string& answer) const {
    const std::vector<model::ChatMessage> messages = {{.role = "user", .content = prompt}};
    model::ChatOptions chat;
    chat.texts = &texts_;
    EM_ASSIGN_OR_RETURN(std::vector<uint32_t> ids,
                        model::EncodeChat(*tokenizer_, encoding_, messages, chat));
    EM_ASSIGN_OR_RETURN(const auto said, tokenizer_->Encode(answer, false));
    ids.insert(ids.end(), said.begin(), said.end());
    return ids;
  }

  const model::Tokenizer& tokenizer() const { return *tokenizer_; }
  const model::EngramHash& hash() const { return hash_; }
  const std::vector<uint32_t>& memory_layers() const { return config_.engram->layer_ids; }
  const std::string& revision() const { return revision_; }

 private:
  model::Config config_;
  model::EngramHash hash_;
  std::string revision_;
  std::unique_ptr<model::Tokenizer> tokenizer_;
  model::ChatEncoding encoding_ = model::ChatEncoding::kNone;
  model::ChatTexts texts_;
};

// Both tokens sequences differ at the places of the names alone.
absl::Status CheckAligned(const ServedModel& served, const EditedQuestion& edited,
                          const std::string& own, const std::string& other,
                          const std::vector<uint32_t>& a, const std::vector<uint32_t>& b) {
  EM_ASSIGN_OR_RETURN(const auto of_a, FindName(served.tokenizer(), a, own));
  EM_ASSIGN_OR_RETURN(const auto of_b, FindName(served.tokenizer(), b, other));
  const auto length = [](const std::vector<TokenRange>& ranges) {
    return ranges.empty() ? 0 : ranges.front().end - ranges.front().first;
  };
  if (length(of_a) != length(of_b)) {
    return Error(Reason::kInvalidArgument,
                 absl::StrCat("\"", own, "\" has ", length(of_a), " tokens, \"", other, "\" ",
                              length(of_b), ": choose names of the same number of tokens"));
  }
  std::vector<bool> named(a.size());
  for (const TokenRange& range : of_a) {
    for (size_t i = range.first; i < range.end; ++i) named[i] = true;
  }
  bool aligned = a.size() == b.size();
  for (size_t i = 0; aligned && i < a.size(); ++i) aligned = named[i] || a[i] == b[i];
  if (aligned) return absl::OkStatus();
  return Error(Reason::kInvalidArgument,
               absl::StrCat("with \"", other, "\" for \"", own,
                            "\" other tokens change too in: ", edited.question.prompt));
}

absl::Status CollectPairs(const ServedModel& served, const EditPlan& plan, const std::string& first,
                          const std::string& second, NameExchange& exchange) {
  for (const EditedQuestion& edited : plan.edited) {
    const bool about_first = edited.question.entity == first;
    EM_ASSIGN_OR_RETURN(const auto own,
                        served.Tokens(edited.question.prompt, edited.question.answer));
    EM_ASSIGN_OR_RETURN(const auto other,
                        served.Tokens(edited.swapped_prompt, edited.swapped_answer));
    EM_RETURN_IF_ERROR(CheckAligned(served, edited, about_first ? first : second,
                                    about_first ? second : first, own, other));
    exchange.Add(own, other);
  }
  for (const Question& question : plan.others) {
    EM_ASSIGN_OR_RETURN(const auto tokens, served.Tokens(question.prompt, question.answer));
    exchange.CountForeign(tokens);
  }
  return absl::OkStatus();
}

// The lane that is running while the version changes, and its two companions.
class LaneAcross {
 public:
  LaneAcross(const InferenceServer& server, std::vector<uint32_t> prompt, uint32_t tokens)
      : server_(server), prompt_(std::move(prompt)), tokens_(tokens) {}

  /// Runs the lane that names the old version, and begins the one that will run across.
  absl::Status Begin(const std::string& old_version) {
    LaneStream pinned(server_, prompt_, tokens_, old_version);
    EM_RETURN_IF_ERROR(pinned.Finish());
    expected_ = pinned.hashes();
    running_ = std::make_unique<LaneStream>(server_, prompt_, tokens_, "");
    if (!running_->Read(kLaneTokensBefore)) return running_->Finish();
    if (running_->version() == old_version) return absl::OkStatus();
    return Error(Reason::kInternal, absl::StrCat("the lane reads version ", running_->version(),
                                                 " of the memory, not ", old_version,
                                                 "; does the server use another store?"));
  }

  absl::Status End(EditReport& report) {
    EM_RETURN_IF_ERROR(running_->Finish());
    report.lane_tokens = tokens_;
    report.lane_equal = running_->hashes() == expected_;
    LaneStream later(server_, prompt_, tokens_, "");
    EM_RETURN_IF_ERROR(later.Finish());
    report.lane_differs = later.hashes() != expected_;
    return absl::OkStatus();
  }

 private:
  const InferenceServer& server_;
  const std::vector<uint32_t> prompt_;
  const uint32_t tokens_;
  std::vector<uint64_t> expected_;
  std::unique_ptr<LaneStream> running_;
};

// Everything between the draft and the roll-back.
absl::Status Measure(const MemoryEditOptions& options, const EditPlan& plan, const ChatAsker& asker,
                     EngramEditor& editor, LaneAcross& lane, EditReport& report,
                     std::ostream& err) {
  std::vector<std::string> prompts;
  for (const EditedQuestion& edited : plan.edited) prompts.push_back(edited.question.prompt);
  for (const Question& question : plan.others) prompts.push_back(question.prompt);
  EditAnswers answers;
  EM_ASSIGN_OR_RETURN(answers.before, asker.Ask(prompts, "eval memory-edit: before", err));
  EM_RETURN_IF_ERROR(lane.Begin(report.old_version));
  EM_RETURN_IF_ERROR(editor.Publish(report.new_version));
  absl::Cleanup restore = [&] { editor.RollBack(report.old_version).IgnoreError(); };
  EM_ASSIGN_OR_RETURN(const uint32_t leases, editor.Leases(report.old_version));
  report.lane_ran_on = leases > 0;
  EM_RETURN_IF_ERROR(lane.End(report));
  if (!report.lane_differs) {
    return base::Error(base::Reason::kInvalidArgument,
                       absl::StrCat("--server computes the same with version ", report.new_version,
                                    " as before: does it read from ", options.store,
                                    "? Nothing was measured; the old version is current again"));
  }
  EM_ASSIGN_OR_RETURN(answers.edited, asker.Ask(prompts, "eval memory-edit: edited", err));
  std::move(restore).Cancel();
  if (!options.keep) {
    EM_RETURN_IF_ERROR(editor.RollBack(report.old_version));
    EM_ASSIGN_OR_RETURN(answers.rolled_back,
                        asker.Ask(prompts, "eval memory-edit: rolled back", err));
  }
  CountEdit(plan, answers, kWrongMax, report);
  return absl::OkStatus();
}

}  // namespace

absl::Status EvalMemoryEdit(const MemoryEditOptions& options, const Output& output) {
  const StopFlag stop;
  EM_ASSIGN_OR_RETURN(const std::vector<Question> questions, ReadQuestions(options.questions));
  EM_ASSIGN_OR_RETURN(const EditPlan plan,
                      PlanEdit(questions, options.first, options.second, options.others));
  EM_ASSIGN_OR_RETURN(const ServedModel served, ServedModel::Load(options));
  NameExchange exchange(served.hash());
  EM_RETURN_IF_ERROR(CollectPairs(served, plan, options.first, options.second, exchange));

  EM_ASSIGN_OR_RETURN(const ChatAsker asker, ChatAsker::Open(options.chat));
  EM_ASSIGN_OR_RETURN(const auto server,
                      InferenceServer::Open(options.server, asker.model(), options.chat.timeout_s));
  EngramEditor editor({.store = options.store,
                       .model = asker.model(),
                       .revision = served.revision(),
                       .timeout_s = options.chat.timeout_s});
  EditReport report;
  report.first = options.first;
  report.second = options.second;
  report.collisions = exchange.collisions();
  report.foreign_reads = exchange.foreign_reads();
  report.foreign_hits = exchange.foreign_hits();
  for (size_t place = 0; place < exchange.pairs().size(); ++place) {
    report.rows.emplace_back(served.memory_layers()[place], exchange.pairs()[place].size());
  }
  EM_ASSIGN_OR_RETURN(report.old_version, editor.Current());
  EM_ASSIGN_OR_RETURN(
      report.new_version,
      editor.Exchange(report.old_version, served.memory_layers(), exchange.pairs()));
  EM_ASSIGN_OR_RETURN(auto prompt, served.Tokens(plan.edited.front().question.prompt, ""));
  LaneAcross lane(*server, std::move(prompt), options.lane_tokens);
  EM_RETURN_IF_ERROR(Measure(options, plan, asker, editor, lane, report, output.err));
  output.out << EditText(report);
  if (options.json.empty()) return absl::OkStatus();
  return WriteReport(options.json, std::string(boost::json::serialize(EditJson(report))) + "\n");
}

}  // namespace expertmesh::cli

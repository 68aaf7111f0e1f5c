#include "attention-worker/constraint_compiler.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "model/grammar/schema.h"
#include "services/base/status.h"

namespace expertmesh::attention_worker {
namespace {

using base::Error;
using base::Reason;
using inference::v1::Constraint;
using inference::v1::ConstraintList;
using model::GrammarBuilder;
using model::NodeId;

constexpr int kDepthMax = 30;
constexpr uint32_t kRepeatMax = 10'000;

absl::StatusOr<NodeId> AddPart(GrammarBuilder& builder, const Constraint& part, uint32_t vocab,
                               int depth);

absl::StatusOr<std::vector<NodeId>> AddParts(GrammarBuilder& builder, const ConstraintList& list,
                                             uint32_t vocab, int depth) {
  if (list.parts().empty()) {
    return Error(Reason::kInvalidArgument, "constraint: a sequence or choice has no parts");
  }
  std::vector<NodeId> nodes;
  for (const Constraint& part : list.parts()) {
    EM_ASSIGN_OR_RETURN(const NodeId node, AddPart(builder, part, vocab, depth + 1));
    nodes.push_back(node);
  }
  return nodes;
}

absl::StatusOr<NodeId> AddRepeat(GrammarBuilder& builder,
                                 const inference::v1::ConstraintRepeat& repeat, uint32_t vocab,
                                 int depth) {
  model::RepeatNode node;
  node.least = repeat.least();
  node.most = repeat.most() == 0 ? model::kNoLimit : repeat.most();
  if (node.least > kRepeatMax || node.least > node.most) {
    return Error(Reason::kInvalidArgument,
                 absl::StrCat("constraint: repeat.least is ", node.least, "; it may be at most ",
                              kRepeatMax, " and repeat.most"));
  }
  EM_ASSIGN_OR_RETURN(node.part, AddPart(builder, repeat.part(), vocab, depth + 1));
  return builder.Add(node);
}

absl::StatusOr<NodeId> AddPart(GrammarBuilder& builder, const Constraint& part, uint32_t vocab,
                               int depth) {
  if (depth > kDepthMax) return Error(Reason::kInvalidArgument, "constraint: nested too deep");
  switch (part.part_case()) {
    case Constraint::kJsonSchema:
      return model::AddSchema(builder, part.json_schema());
    case Constraint::kLiteral:
      if (part.literal().empty()) {
        return Error(Reason::kInvalidArgument, "constraint: a literal is empty");
      }
      return builder.Add(model::LiteralNode{part.literal()});
    case Constraint::kTokenId:
      if (part.token_id() >= vocab) {
        return Error(Reason::kInvalidArgument,
                     absl::StrCat("constraint: token ", part.token_id(),
                                  ", the vocabulary ends at ", vocab - 1));
      }
      return builder.Add(model::TokenNode{part.token_id()});
    case Constraint::kFreeText:
      return builder.Add(model::FreeTextNode{});
    case Constraint::kSequence: {
      EM_ASSIGN_OR_RETURN(auto parts, AddParts(builder, part.sequence(), vocab, depth));
      return builder.Add(model::SequenceNode{std::move(parts)});
    }
    case Constraint::kChoice: {
      EM_ASSIGN_OR_RETURN(auto branches, AddParts(builder, part.choice(), vocab, depth));
      return builder.Add(model::ChoiceNode{std::move(branches)});
    }
    case Constraint::kRepeat:
      return AddRepeat(builder, part.repeat(), vocab, depth);
    case Constraint::PART_NOT_SET:
      break;
  }
  return Error(Reason::kInvalidArgument, "constraint: a part is empty");
}

}  // namespace

ConstraintCompiler::ConstraintCompiler(const model::Tokenizer& tokenizer, uint32_t vocab_size)
    : trie_(std::make_shared<model::TokenTrie>(tokenizer, vocab_size)) {}

absl::StatusOr<std::shared_ptr<const model::Grammar>> ConstraintCompiler::Compile(
    const Constraint& constraint) {
  const std::string key = constraint.SerializeAsString();
  {
    std::lock_guard lock(mutex_);
    const auto it = std::find_if(kept_.begin(), kept_.end(),
                                 [&](const Kept& kept) { return kept.first == key; });
    if (it != kept_.end()) {
      kept_.splice(kept_.begin(), kept_, it);
      return it->second;
    }
  }
  GrammarBuilder builder;
  const auto vocab = static_cast<uint32_t>(trie_->vocab_rows());
  EM_ASSIGN_OR_RETURN(const NodeId root, AddPart(builder, constraint, vocab, 0));
  EM_ASSIGN_OR_RETURN(auto grammar, std::move(builder).Finish(root));
  std::lock_guard lock(mutex_);
  kept_.emplace_front(key, grammar);
  if (kept_.size() > kKept) kept_.pop_back();
  return grammar;
}

}  // namespace expertmesh::attention_worker

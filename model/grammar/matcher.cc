#include "model/grammar/matcher.h"

#include <algorithm>
#include <utility>

namespace expertmesh::model {
namespace {

constexpr uint32_t kEntersPerStep = 4096;
constexpr size_t kFramesCompared = 64;

}  // namespace

Matcher::Matcher(std::shared_ptr<const Grammar> grammar, const TokenTrie& trie)
    : grammar_(std::move(grammar)), trie_(&trie) {
  step_budget_ = kEntersPerStep;
  Enter(grammar_->root(), kNone, readings_);
}

bool Matcher::complete() const {
  return std::any_of(readings_.begin(), readings_.end(),
                     [](const Reading& r) { return r.node == kNone; });
}

bool Matcher::finished() const {
  return std::all_of(readings_.begin(), readings_.end(),
                     [](const Reading& r) { return r.node == kNone; });
}

uint32_t Matcher::shortest_rest() const { return LeastRest(readings_); }

void Matcher::Put(const Reading& reading, Readings& out) {
  if (out.size() >= kReadingsMax || std::find(out.begin(), out.end(), reading) != out.end()) return;
  out.push_back(reading);
}

uint32_t Matcher::Push(const Reading& resume) {
  const size_t oldest =
      std::max(step_frames_, frames_.size() - std::min(frames_.size(), kFramesCompared));
  for (size_t i = frames_.size(); i-- > oldest;) {
    if (frames_[i].resume == resume) return static_cast<uint32_t>(i);
  }
  const Node& node = grammar_->node(resume.node);
  const bool container =
      std::holds_alternative<ArrayNode>(node) || std::holds_alternative<ObjectNode>(node);
  Frame frame;
  frame.resume = resume;
  frame.rest = RestOf(resume);
  frame.depth = (resume.parent == kNone ? 0 : frames_[resume.parent].depth) + (container ? 1 : 0);
  frames_.push_back(frame);
  return static_cast<uint32_t>(frames_.size() - 1);
}

void Matcher::Undo(const Mark& mark) {
  frames_.resize(mark.frames);
  key_chars_.resize(mark.key_chars);
  used_keys_.resize(mark.used_keys);
}

void Matcher::Enter(NodeId id, uint32_t parent, Readings& out) {
  if (grammar_->shortest(id) >= kForever || out.size() >= kReadingsMax || step_budget_ == 0) return;
  --step_budget_;
  const Node& node = grammar_->node(id);
  Reading reading;
  reading.node = id;
  reading.parent = parent;
  if (const auto* choice = std::get_if<ChoiceNode>(&node)) {
    for (const NodeId branch : choice->branches) Enter(branch, parent, out);
  } else if (const auto* sequence = std::get_if<SequenceNode>(&node)) {
    reading.a = 1;
    Enter(sequence->parts[0], sequence->parts.size() == 1 ? parent : Push(reading), out);
  } else if (const auto* repeat = std::get_if<RepeatNode>(&node)) {
    if (repeat->least == 0) Complete(parent, out);
    reading.a = 1;
    if (repeat->most > 0) Enter(repeat->part, Push(reading), out);
  } else {
    const auto* machine = std::get_if<MachineNode>(&node);
    if (machine != nullptr && !machine->quoted) {
      reading.phase = 1;
      if (machine->machine->accepting(ByteMachine::kStart)) Complete(parent, out);
    }
    if (std::holds_alternative<FreeTextNode>(node)) Complete(parent, out);
    Put(reading, out);
  }
}

void Matcher::Complete(uint32_t parent, Readings& out) {
  if (parent == kNone) {
    Put(Reading{}, out);
    return;
  }
  Reading reading = frames_[parent].resume;
  const Node& node = grammar_->node(reading.node);
  if (const auto* sequence = std::get_if<SequenceNode>(&node)) {
    const NodeId part = sequence->parts[reading.a++];
    const bool last = reading.a == sequence->parts.size();
    Enter(part, last ? reading.parent : Push(reading), out);
  } else if (const auto* repeat = std::get_if<RepeatNode>(&node)) {
    if (reading.a >= repeat->least) Complete(reading.parent, out);
    if (reading.a < repeat->most) {
      // Without bounds the count does not matter, and readings stay alike.
      if (reading.a < repeat->least || repeat->most != kNoLimit) ++reading.a;
      Enter(repeat->part, Push(reading), out);
    }
  } else {
    Put(reading, out);  // arrays and objects stand behind their value
  }
}

uint32_t Matcher::OwnRest(const Reading& reading) const {
  const Node& node = grammar_->node(reading.node);
  if (const auto* literal = std::get_if<LiteralNode>(&node)) {
    return static_cast<uint32_t>(literal->bytes.size()) - reading.a;
  }
  if (const auto* sequence = std::get_if<SequenceNode>(&node)) {
    uint32_t sum = 0;
    for (size_t i = reading.a; i < sequence->parts.size(); ++i) {
      sum = SaturatingAdd(sum, grammar_->shortest(sequence->parts[i]));
    }
    return sum;
  }
  if (const auto* repeat = std::get_if<RepeatNode>(&node)) {
    if (reading.a >= repeat->least) return 0;
    const uint64_t rest =
        static_cast<uint64_t>(repeat->least - reading.a) * grammar_->shortest(repeat->part);
    return rest < kForever ? static_cast<uint32_t>(rest) : kForever;
  }
  if (const auto* machine = std::get_if<MachineNode>(&node)) {
    return MachineRest(*machine, reading);
  }
  if (const auto* array = std::get_if<ArrayNode>(&node)) return ArrayRest(*array, reading);
  if (const auto* object = std::get_if<ObjectNode>(&node)) return ObjectRest(*object, reading);
  if (std::holds_alternative<StringNode>(node) || std::holds_alternative<NumberNode>(node)) {
    return ScalarRest(node, reading);
  }
  return grammar_->shortest(reading.node);
}

uint32_t Matcher::RestOf(const Reading& reading) const {
  if (reading.node == kNone) return 0;
  const uint32_t own = OwnRest(reading);
  return reading.parent == kNone ? own : SaturatingAdd(own, frames_[reading.parent].rest);
}

uint32_t Matcher::LeastRest(const Readings& readings) const {
  uint32_t least = kForever;
  for (const Reading& reading : readings) least = std::min(least, RestOf(reading));
  return least;
}

void Matcher::Step(const Reading& reading, uint8_t byte, Readings& out) {
  if (reading.node == kNone) return;
  const Node& node = grammar_->node(reading.node);
  if (const auto* literal = std::get_if<LiteralNode>(&node)) {
    if (static_cast<uint8_t>(literal->bytes[reading.a]) != byte) return;
    Reading next = reading;
    if (++next.a == literal->bytes.size()) {
      Complete(next.parent, out);
    } else {
      Put(next, out);
    }
  } else if (std::holds_alternative<FreeTextNode>(node)) {
    Put(reading, out);
    Complete(reading.parent, out);
  } else if (const auto* machine = std::get_if<MachineNode>(&node)) {
    StepMachine(*machine, reading, byte, out);
  } else if (const auto* string = std::get_if<StringNode>(&node)) {
    StepString(*string, reading, byte, out);
  } else if (const auto* number = std::get_if<NumberNode>(&node)) {
    StepNumber(*number, reading, byte, out);
  } else if (const auto* array = std::get_if<ArrayNode>(&node)) {
    StepArray(*array, reading, byte, out);
  } else if (const auto* object = std::get_if<ObjectNode>(&node)) {
    StepObject(*object, reading, byte, out);
  }
}

void Matcher::StepAll(const Readings& from, uint8_t byte, Readings& to) {
  to.clear();
  step_frames_ = frames_.size();
  step_budget_ = kEntersPerStep;
  for (const Reading& reading : from) Step(reading, byte, to);
}

void Matcher::StepToken(const Readings& from, uint32_t token, Readings& to) {
  to.clear();
  step_frames_ = frames_.size();
  step_budget_ = kEntersPerStep;
  for (const Reading& reading : from) {
    if (reading.node == kNone) continue;
    const auto* node = std::get_if<TokenNode>(&grammar_->node(reading.node));
    if (node != nullptr && node->id == token) Complete(reading.parent, to);
  }
}

bool Matcher::Accept(uint32_t token) {
  if (token >= trie_->vocab_rows()) return false;
  const Mark mark = SetMark();
  Readings now = readings_;
  Readings next;
  if (trie_->bytes(token).empty()) {
    StepToken(now, token, next);
    now.swap(next);
  }
  for (const char c : trie_->bytes(token)) {
    StepAll(now, static_cast<uint8_t>(c), next);
    now.swap(next);
    if (now.empty()) break;
  }
  if (now.empty()) {
    Undo(mark);
    return false;
  }
  readings_ = std::move(now);
  return true;
}

void Matcher::Walk(const Trie& trie, const Readings& from, int64_t rest_max, TokenSet& allowed) {
  if (from.empty()) return;
  std::vector<Readings> path = {from};
  std::vector<Mark> marks = {SetMark()};
  for (size_t i = 0; i < trie.nodes.size();) {
    const TrieNode& node = trie.nodes[i];
    if (path.size() <= node.depth) {
      path.emplace_back();
      marks.push_back({});
    }
    Undo(marks[node.depth - 1u]);
    Readings& now = path[node.depth];
    StepAll(path[node.depth - 1u], node.byte, now);
    if (now.empty()) {
      i = node.next;
      continue;
    }
    marks[node.depth] = SetMark();
    if (node.token_count > 0 && LeastRest(now) <= rest_max) {
      for (uint32_t t = 0; t < node.token_count; ++t) allowed.Add(trie.ids[node.tokens + t]);
    }
    ++i;
  }
  Undo(marks[0]);
}

void Matcher::AllowTokens(int64_t rest_max, TokenSet& allowed) {
  const Mark mark = SetMark();
  Readings next;
  for (const Reading& reading : readings_) {
    if (reading.node == kNone) continue;
    const auto* node = std::get_if<TokenNode>(&grammar_->node(reading.node));
    if (node == nullptr || node->id >= allowed.size() || allowed.Has(node->id)) continue;
    StepToken(readings_, node->id, next);
    if (!next.empty() && LeastRest(next) <= rest_max) allowed.Add(node->id);
    Undo(mark);
  }
}

TokenSet Matcher::Allowed(uint64_t remaining) {
  TokenSet allowed(trie_->vocab_rows());
  // Every step may leave so many bytes at most. A single byte of the shortest way always fits, so
  // something is allowed as long as the text is not whole.
  const int64_t least = LeastRest(readings_);
  int64_t rest_max = std::max(
      static_cast<int64_t>(std::min<uint64_t>(remaining, uint64_t{1} << 40)) - 2, least - 1);
  Readings walked;   // over the whole vocabulary
  Readings strings;  // inside a string: what is not plain
  for (const Reading& reading : readings_) {
    const uint32_t depth = reading.parent == kNone ? 0 : frames_[reading.parent].depth;
    if (depth >= kDepthMax) rest_max = std::min(rest_max, least - 1);
  }
  for (const Reading& reading : readings_) {
    if (reading.node == kNone) continue;
    const Node& node = grammar_->node(reading.node);
    if (std::holds_alternative<FreeTextNode>(node)) {
      if (RestOf(reading) <= rest_max) allowed.AddAll(trie_->all());
    } else if (TakesPlain(reading, rest_max)) {
      AllowPlain(reading, rest_max, allowed);
      strings.push_back(reading);
    } else if (!std::holds_alternative<TokenNode>(node)) {
      walked.push_back(reading);
    }
  }
  Walk(trie_->other(), strings, rest_max, allowed);
  Walk(trie_->trie(), walked, rest_max, allowed);
  AllowTokens(rest_max, allowed);
  return allowed;
}

}  // namespace expertmesh::model

#include "model/grammar/grammar.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "services/base/status.h"

namespace expertmesh::model {
namespace {

absl::Status Refused(std::string what) {
  return base::Error(base::Reason::kSchemaUnsupported, std::move(what));
}

template <class... Ts>
struct Overloaded : Ts... {
  using Ts::operator()...;
};
template <class... Ts>
Overloaded(Ts...) -> Overloaded<Ts...>;

}  // namespace

NodeId GrammarBuilder::Add(Node node) {
  if (nodes_.size() >= kNodesMax) {
    full_ = true;
    return 0;
  }
  nodes_.emplace_back();
  const auto id = static_cast<NodeId>(nodes_.size() - 1);
  Set(id, std::move(node));
  return id;
}

void GrammarBuilder::Set(NodeId id, Node node) {
  if (const auto* machine = std::get_if<MachineNode>(&node)) {
    machine_states_ += machine->machine->size();
    full_ = full_ || machine_states_ > kMachineStatesMax;
  }
  nodes_[id] = std::move(node);
}

uint32_t GrammarBuilder::LengthOf(const Node& node) const {
  const auto of = [&](NodeId id) { return shortest_[id]; };
  return std::visit(
      Overloaded{
          [](const LiteralNode& n) { return static_cast<uint32_t>(n.bytes.size()); },
          [](const TokenNode&) { return uint32_t{1}; },
          [](const FreeTextNode&) { return uint32_t{0}; },
          [&](const SequenceNode& n) {
            uint32_t sum = 0;
            for (const NodeId part : n.parts) sum = SaturatingAdd(sum, of(part));
            return sum;
          },
          [&](const ChoiceNode& n) {
            uint32_t best = kForever;
            for (const NodeId branch : n.branches) best = std::min(best, of(branch));
            return best;
          },
          [&](const RepeatNode& n) {
            const uint64_t all = static_cast<uint64_t>(n.least) * of(n.part);
            return all < kForever ? static_cast<uint32_t>(all) : kForever;
          },
          [](const MachineNode& n) {
            return SaturatingAdd(n.machine->distance(ByteMachine::kStart), n.quoted ? 2 : 0);
          },
          [](const StringNode& n) {
            return n.least > n.most ? kForever : SaturatingAdd(std::min(n.least, kForever), 2);
          },
          [](const NumberNode& n) { return ShortestRest(n.range, {}); },
          [&](const ArrayNode& n) {
            if (n.least > n.most) return kForever;
            const uint32_t commas = n.least > 1 ? std::min(n.least, kForever) - 1 : 0;
            return SaturatingAdd(n.ItemsLength(0, n.least, of), SaturatingAdd(commas, 2));
          },
          [&](const ObjectNode& n) {
            uint32_t sum = 2;
            uint32_t required = 0;
            for (const ObjectProperty& p : n.properties) {
              if (!p.required) continue;
              const auto key = static_cast<uint32_t>(p.key.size()) + 1;
              sum = SaturatingAdd(sum, SaturatingAdd(key, of(p.value)));
              ++required;
            }
            return SaturatingAdd(sum, required > 0 ? required - 1 : 0);
          },
      },
      node);
}

void GrammarBuilder::MeasureLengths() {
  shortest_.assign(nodes_.size(), kForever);
  for (bool changed = true; changed;) {
    changed = false;
    for (size_t i = nodes_.size(); i-- > 0;) {
      const uint32_t length = std::min(kForever, LengthOf(nodes_[i]));
      if (length >= shortest_[i]) continue;
      shortest_[i] = length;
      changed = true;
    }
  }
}

// Nodes whose text may begin where this node's begins.
std::vector<NodeId> GrammarBuilder::EntriesOf(const Node& node) const {
  if (const auto* choice = std::get_if<ChoiceNode>(&node)) return choice->branches;
  if (const auto* repeat = std::get_if<RepeatNode>(&node)) return {repeat->part};
  std::vector<NodeId> entries;
  if (const auto* sequence = std::get_if<SequenceNode>(&node)) {
    for (const NodeId part : sequence->parts) {
      entries.push_back(part);
      if (shortest_[part] > 0) break;
    }
  }
  return entries;
}

bool GrammarBuilder::EntersItself() const {
  enum class Mark : uint8_t { kNew, kOpen, kDone };
  std::vector<Mark> marks(nodes_.size(), Mark::kNew);
  struct Visit {
    NodeId node;
    std::vector<NodeId> entries;
    size_t next = 0;
  };
  for (NodeId start = 0; start < nodes_.size(); ++start) {
    if (marks[start] != Mark::kNew) continue;
    std::vector<Visit> path;
    path.push_back({start, EntriesOf(nodes_[start])});
    marks[start] = Mark::kOpen;
    while (!path.empty()) {
      Visit& visit = path.back();
      if (visit.next == visit.entries.size()) {
        marks[visit.node] = Mark::kDone;
        path.pop_back();
        continue;
      }
      const NodeId entry = visit.entries[visit.next++];
      if (marks[entry] == Mark::kOpen) return true;
      if (marks[entry] == Mark::kDone) continue;
      marks[entry] = Mark::kOpen;
      path.push_back({entry, EntriesOf(nodes_[entry])});
    }
  }
  return false;
}

void GrammarBuilder::MeasureObjects() {
  for (Node& node : nodes_) {
    auto* object = std::get_if<ObjectNode>(&node);
    if (object == nullptr) continue;
    const size_t count = object->properties.size();
    object->required_from.assign(count + 1, 0);
    object->cheapest_from.assign(count + 1, kForever);
    object->next_required.assign(count + 1, static_cast<uint32_t>(count));
    for (size_t i = count; i-- > 0;) {
      const ObjectProperty& p = object->properties[i];
      object->required_from[i] = object->required_from[i + 1];
      object->next_required[i] = object->next_required[i + 1];
      const uint32_t length =
          SaturatingAdd(static_cast<uint32_t>(p.key.size()) + 1, shortest_[p.value]);
      object->cheapest_from[i] = std::min(object->cheapest_from[i + 1], length);
      if (!p.required) continue;
      object->required_from[i] = SaturatingAdd(object->required_from[i], SaturatingAdd(length, 1));
      object->next_required[i] = static_cast<uint32_t>(i);
    }
  }
}

absl::StatusOr<std::shared_ptr<const Grammar>> GrammarBuilder::Finish(NodeId root) && {
  if (full_) {
    return Refused(absl::StrCat("the schema is too large: it needs more than ", kNodesMax,
                                " parts, or its patterns and enums more than ", kMachineStatesMax,
                                " states"));
  }
  MeasureLengths();
  for (const Node& node : nodes_) {
    const auto* repeat = std::get_if<RepeatNode>(&node);
    if (repeat != nullptr && shortest_[repeat->part] == 0) {
      return Refused("constraint: what is repeated may be empty");
    }
  }
  if (EntersItself()) return Refused("$ref: the schema refers to itself with nothing between");
  if (shortest_[root] >= kForever) return Refused("no value can satisfy the schema");
  MeasureObjects();
  auto grammar = std::make_shared<Grammar>();
  grammar->nodes_ = std::move(nodes_);
  grammar->shortest_ = std::move(shortest_);
  grammar->root_ = root;
  return grammar;
}

}  // namespace expertmesh::model

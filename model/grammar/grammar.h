// What a constrained answer may say: a grammar over bytes and special tokens, with JSON values as
// terminals of their own, so that lengths and counts need no unrolling. Immutable once built.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "absl/status/statusor.h"
#include "model/grammar/byte_machine.h"
#include "model/grammar/number_range.h"

namespace expertmesh::model {

using NodeId = uint32_t;
inline constexpr uint32_t kNoLimit = UINT32_MAX;

/// These bytes; at least one.
struct LiteralNode {
  std::string bytes;
};
/// This special token, and nothing that merely looks like it.
struct TokenNode {
  uint32_t id = 0;
};
/// Any ordinary tokens, also none.
struct FreeTextNode {};
struct SequenceNode {
  std::vector<NodeId> parts;  // at least one
};
/// One of them; none: nothing can stand here.
struct ChoiceNode {
  std::vector<NodeId> branches;
};
struct RepeatNode {
  NodeId part = 0;  // never empty
  uint32_t least = 0;
  uint32_t most = kNoLimit;
};
/// A text of the machine; `quoted`: as a JSON string whose content it is.
struct MachineNode {
  std::shared_ptr<const ByteMachine> machine;
  bool quoted = false;
};
/// A JSON string of so many code points.
struct StringNode {
  uint32_t least = 0;
  uint32_t most = kNoLimit;
};
struct NumberNode {
  NumberRange range;
};
struct ArrayNode {
  std::vector<NodeId> prefix;   // of the first elements
  std::optional<NodeId> items;  // of all behind them; none: no more elements
  uint32_t least = 0;
  uint32_t most = kNoLimit;

  /// The node of an element; nullopt if there can be none.
  std::optional<NodeId> ItemAt(uint32_t index) const {
    if (index < prefix.size()) return prefix[index];
    return items;
  }
  /// Sum of `of` (node → bytes) over the elements from `begin` to before `end`.
  template <class LengthOf>
  uint32_t ItemsLength(uint32_t begin, uint32_t end, const LengthOf& of) const {
    uint64_t sum = 0;
    for (; begin < end && begin < prefix.size(); ++begin) sum += of(prefix[begin]);
    if (begin < end) sum += static_cast<uint64_t>(end - begin) * (items ? of(*items) : kForever);
    return sum < kForever ? static_cast<uint32_t>(sum) : kForever;
  }
};
struct ObjectProperty {
  std::string name;  // as it is
  std::string key;   // as JSON, quotes included
  NodeId value = 0;
  bool required = false;
};
/// Properties come in this order, those not required may be left out; keys that are not in the list
/// come behind them, none twice, none of a listed name.
struct ObjectNode {
  std::vector<ObjectProperty> properties;
  std::optional<NodeId> additional;

  // Filled in by GrammarBuilder::Finish, [properties + 1]: what is still to be written at least.
  std::vector<uint32_t> required_from;  // ',' key ':' value of all required ones from here
  std::vector<uint32_t> next_required;  // index of the next required one, or properties.size()
  std::vector<uint32_t> cheapest_from;  // shortest key ':' value of all from here
};

using Node = std::variant<LiteralNode, TokenNode, FreeTextNode, SequenceNode, ChoiceNode,
                          RepeatNode, MachineNode, StringNode, NumberNode, ArrayNode, ObjectNode>;

class Grammar {
 public:
  const Node& node(NodeId id) const { return nodes_[id]; }
  NodeId root() const { return root_; }
  /// Fewest bytes of this node's text, a special token counted as one; kForever if it has none.
  uint32_t shortest(NodeId id) const { return shortest_[id]; }

 private:
  friend class GrammarBuilder;
  std::vector<Node> nodes_;
  std::vector<uint32_t> shortest_;
  NodeId root_ = 0;
};

/// Collects nodes, one owner.
class GrammarBuilder {
 public:
  static constexpr size_t kNodesMax = 20'000;
  static constexpr size_t kMachineStatesMax = 4 * ByteMachine::kStatesMax;  // of all machines

  /// Beyond kNodesMax nodes are not kept and Finish says so.
  NodeId Add(Node node);
  /// A node whose text is filled in later: for what refers to itself.
  NodeId Reserve() { return Add(ChoiceNode{}); }
  void Set(NodeId id, Node node);
  bool full() const { return full_; }

  /// kSchemaUnsupported, saying why: too large; repeats what may be empty; refers to itself without
  /// a text between; no text fits.
  absl::StatusOr<std::shared_ptr<const Grammar>> Finish(NodeId root) &&;

 private:
  void MeasureLengths();
  uint32_t LengthOf(const Node& node) const;
  bool EntersItself() const;
  std::vector<NodeId> EntriesOf(const Node& node) const;
  void MeasureObjects();

  std::vector<Node> nodes_;
  std::vector<uint32_t> shortest_;
  size_t machine_states_ = 0;
  bool full_ = false;
};

}  // namespace expertmesh::model

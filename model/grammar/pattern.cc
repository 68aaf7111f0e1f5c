#include "model/grammar/pattern.h"

#include <algorithm>
#include <map>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "model/grammar/pattern_parser.h"
#include "model/tokenizer/utf8.h"
#include "services/base/status.h"

namespace expertmesh::model {
namespace {

using Kind = PatternExpr::Kind;
using Nfa = uint32_t;

constexpr size_t kNfaStatesMax = 50'000;

struct Edge {
  uint8_t first;
  uint8_t last;
  Nfa to;
};
struct NfaState {
  std::vector<Edge> edges;
  std::vector<Nfa> empty;  // moves that take no byte
};

// Thompson's construction: each part is built between two states.
class NfaBuilder {
 public:
  Nfa State() {
    states_.emplace_back();
    return static_cast<Nfa>(states_.size() - 1);
  }
  bool full() const { return states_.size() > kNfaStatesMax; }
  const std::vector<NfaState>& states() const { return states_; }

  void Empty(Nfa from, Nfa to) { states_[from].empty.push_back(to); }

  void Add(const PatternExpr& expr, Nfa from, Nfa to) {
    if (full()) return;
    switch (expr.kind) {
      case Kind::kChars:
        for (const CharRange& range : expr.chars) AddRange(range, from, to);
        return;
      case Kind::kConcat: {
        Nfa at = from;
        for (const PatternExpr& part : expr.parts) {
          const Nfa next = State();
          Add(part, at, next);
          at = next;
        }
        return Empty(at, to);
      }
      case Kind::kAlternate:
        for (const PatternExpr& part : expr.parts) Add(part, from, to);
        return;
      case Kind::kRepeat:
        return AddRepeat(expr, from, to);
    }
  }

 private:
  void AddRepeat(const PatternExpr& expr, Nfa from, Nfa to) {
    Nfa at = State();
    Empty(from, at);
    const PatternExpr& part = expr.parts[0];
    for (uint32_t i = 0; i < expr.least && !full(); ++i) {
      const Nfa next = State();
      Add(part, at, next);
      at = next;
    }
    if (expr.most == PatternExpr::kUnbounded) {
      const Nfa back = State();
      Add(part, at, back);
      Empty(back, at);
      return Empty(at, to);
    }
    for (uint32_t i = expr.least; i < expr.most && !full(); ++i) {
      Empty(at, to);
      const Nfa next = State();
      Add(part, at, next);
      at = next;
    }
    Empty(at, to);
  }

  // A range of code points as sequences of byte ranges: cut where the number of bytes changes, and
  // then wherever a continuation byte would not run from 80 to BF.
  void AddRange(CharRange range, Nfa from, Nfa to) {
    for (const char32_t top : {0x7F, 0x7FF, 0xFFFF}) {
      if (range.first <= top && range.last > top) {
        AddRange({range.first, top}, from, to);
        range.first = top + 1;
      }
    }
    for (int bits = 6; bits <= 18; bits += 6) {
      const char32_t mask = (char32_t{1} << bits) - 1;
      if (range.last <= 0x7F || (range.first & ~mask) == (range.last & ~mask)) continue;
      if ((range.first & mask) != 0) {
        AddRange({range.first, range.first | mask}, from, to);
        return AddRange({(range.first | mask) + 1, range.last}, from, to);
      }
      if ((range.last & mask) != mask) {
        AddRange({range.first, (range.last & ~mask) - 1}, from, to);
        return AddRange({range.last & ~mask, range.last}, from, to);
      }
    }
    std::string low;
    std::string high;
    AppendUtf8(range.first, low);
    AppendUtf8(range.last, high);
    Nfa at = from;
    for (size_t i = 0; i < low.size(); ++i) {
      const Nfa next = i + 1 == low.size() ? to : State();
      states_[at].edges.push_back(
          {static_cast<uint8_t>(low[i]), static_cast<uint8_t>(high[i]), next});
      at = next;
    }
  }

  std::vector<NfaState> states_;
};

using Set = std::vector<Nfa>;  // sorted

class Determiniser {
 public:
  Determiniser(const std::vector<NfaState>& states, Nfa accept)
      : states_(states), accept_(accept), seen_(states.size()) {}

  // False if it has too many states.
  bool Run(Nfa start, ByteMachine& machine) {
    if (StateOf(Closure({start}), machine) == ByteMachine::kNone) return false;
    for (size_t i = 0; i < sets_.size(); ++i) {
      std::vector<Set> targets(256);
      const Set set = *sets_[i];
      for (const Nfa state : set) {
        for (const Edge& edge : states_[state].edges) {
          for (int byte = edge.first; byte <= edge.last; ++byte) {
            targets[static_cast<size_t>(byte)].push_back(edge.to);
          }
        }
      }
      ByteMachine::State before = ByteMachine::kNone;
      for (size_t byte = 0; byte < 256; ++byte) {
        if (targets[byte].empty()) continue;
        if (byte == 0 || targets[byte] != targets[byte - 1]) {
          before = StateOf(Closure(targets[byte]), machine);
          if (before == ByteMachine::kNone) return false;
        }
        machine.Connect(static_cast<ByteMachine::State>(i), static_cast<uint8_t>(byte), before);
      }
    }
    return true;
  }

 private:
  Set Closure(Set set) {
    Set closed;
    ++round_;
    while (!set.empty()) {
      const Nfa state = set.back();
      set.pop_back();
      if (seen_[state] == round_) continue;
      seen_[state] = round_;
      closed.push_back(state);
      set.insert(set.end(), states_[state].empty.begin(), states_[state].empty.end());
    }
    std::sort(closed.begin(), closed.end());
    return closed;
  }

  ByteMachine::State StateOf(Set set, ByteMachine& machine) {
    const bool accepting = std::binary_search(set.begin(), set.end(), accept_);
    const auto [it, is_new] = numbers_.emplace(std::move(set), sets_.size());
    if (is_new) {
      sets_.push_back(&it->first);
      nfa_total_ += it->first.size();
      if (nfa_total_ > kNfaTotalMax) return ByteMachine::kNone;
      return machine.AddState(accepting);
    }
    return static_cast<ByteMachine::State>(it->second);
  }

  static constexpr size_t kNfaTotalMax = 1'000'000;  // bounds time and memory
  const std::vector<NfaState>& states_;
  const Nfa accept_;
  std::vector<uint32_t> seen_;
  uint32_t round_ = 0;
  std::map<Set, size_t> numbers_;
  std::vector<const Set*> sets_;
  size_t nfa_total_ = 0;
};

absl::Status TooLarge(std::string_view what) {
  return base::Error(base::Reason::kSchemaUnsupported,
                     absl::StrCat("pattern: ", std::string(what), " needs more than ",
                                  ByteMachine::kStatesMax, " states; make it simpler"));
}

absl::StatusOr<ByteMachine> Determinise(std::string_view pattern) {
  EM_ASSIGN_OR_RETURN(const auto branches, ParsePattern(pattern));
  NfaBuilder nfa;
  const Nfa start = nfa.State();
  const Nfa accept = nfa.State();
  PatternExpr anything;
  anything.kind = Kind::kRepeat;
  anything.parts.push_back({Kind::kChars, {{0, 0xD7FF}, {0xE000, 0x10FFFF}}, {}, 0, 0});
  for (const PatternBranch& branch : branches) {
    const Nfa first = nfa.State();
    const Nfa last = nfa.State();
    if (branch.from_begin) {
      nfa.Empty(start, first);
    } else {
      nfa.Add(anything, start, first);
    }
    nfa.Add(branch.expr, first, last);
    if (branch.to_end) {
      nfa.Empty(last, accept);
    } else {
      nfa.Add(anything, last, accept);
    }
  }
  if (nfa.full()) return TooLarge("it");
  ByteMachine machine;
  if (!Determiniser(nfa.states(), accept).Run(start, machine)) return TooLarge("it");
  return machine;
}

// The machine that also counts characters. Counts above both bounds are one.
absl::StatusOr<ByteMachine> Counted(const ByteMachine& from, uint32_t least, uint32_t most) {
  const uint32_t cap = most == UINT32_MAX ? least : most;
  if (cap > ByteMachine::kStatesMax) return TooLarge("with minLength or maxLength it");
  ByteMachine machine;
  std::map<std::pair<ByteMachine::State, uint32_t>, ByteMachine::State> numbers;
  std::vector<std::pair<ByteMachine::State, uint32_t>> states;
  const auto number = [&](ByteMachine::State state, uint32_t count) {
    const auto it = numbers.find({state, count});
    if (it != numbers.end()) return it->second;
    const auto added = machine.AddState(from.accepting(state) && count >= least);
    numbers[{state, count}] = added;
    states.emplace_back(state, count);
    return added;
  };
  number(ByteMachine::kStart, 0);
  for (size_t i = 0; i < states.size(); ++i) {
    const auto [state, count] = states[i];
    for (int byte = 0; byte < 256; ++byte) {
      const auto to = from.Next(state, static_cast<uint8_t>(byte));
      if (to == ByteMachine::kNone) continue;
      const bool begins = (byte & 0xC0) != 0x80;
      if (begins && count == most) continue;
      const auto next = number(to, std::min(count + (begins ? 1 : 0), cap));
      if (next == ByteMachine::kNone) return TooLarge("with minLength or maxLength it");
      machine.Connect(static_cast<ByteMachine::State>(i), static_cast<uint8_t>(byte), next);
    }
  }
  return machine;
}

}  // namespace

absl::StatusOr<ByteMachine> CompilePattern(std::string_view pattern, uint32_t least,
                                           uint32_t most) {
  EM_ASSIGN_OR_RETURN(ByteMachine machine, Determinise(pattern));
  machine.Close(true);  // takes away what leads nowhere before it is multiplied
  if (least > 0 || most != UINT32_MAX) {
    EM_ASSIGN_OR_RETURN(machine, Counted(machine, least, most));
    machine.Close(true);
  }
  return machine;
}

absl::StatusOr<ByteMachine> CompileBare(std::string_view pattern) {
  EM_ASSIGN_OR_RETURN(ByteMachine machine, Determinise(pattern));
  machine.Close(false);
  return machine;
}

}  // namespace expertmesh::model

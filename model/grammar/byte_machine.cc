#include "model/grammar/byte_machine.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "services/base/status.h"

namespace expertmesh::model {

absl::StatusOr<ByteMachine> ByteMachine::OfLiterals(const std::vector<std::string>& literals) {
  ByteMachine machine;
  machine.AddState(false);
  for (const std::string& literal : literals) {
    State state = kStart;
    for (const char c : literal) {
      const auto byte = static_cast<uint8_t>(c);
      State next = machine.Next(state, byte);
      if (next == kNone) {
        next = machine.AddState(false);
        if (next == kNone) {
          return base::Error(base::Reason::kSchemaUnsupported,
                             absl::StrCat("enum: the values are longer than ", kStatesMax,
                                          " bytes together, beginnings in common counted once"));
        }
        machine.Connect(state, byte, next);
      }
      state = next;
    }
    machine.accepting_[state] = true;
  }
  machine.Close(false);
  return machine;
}

ByteMachine::State ByteMachine::AddState(bool accepting) {
  if (size() >= kStatesMax) return kNone;
  next_.resize(next_.size() + 256, kNone);
  accepting_.push_back(accepting);
  return static_cast<State>(size() - 1);
}

void ByteMachine::Close(bool quoted) {
  distance_.assign(size(), kForever);
  // Costs are 1 or 2, so Bellman-Ford over few rounds; each round goes backwards, since builders
  // number states in the order they are reached.
  for (bool changed = true; changed;) {
    changed = false;
    for (size_t s = size(); s-- > 0;) {
      uint32_t best = accepting_[s] ? 0 : distance_[s];
      for (int byte = 0; byte < 256 && best > 0; ++byte) {
        const State to = Next(static_cast<State>(s), static_cast<uint8_t>(byte));
        if (to == kNone || distance_[to] >= kForever) continue;
        const uint32_t cost = quoted ? QuotedCost(static_cast<uint8_t>(byte)) : 1;
        best = std::min(best, SaturatingAdd(cost, distance_[to]));
      }
      if (best < distance_[s]) {
        distance_[s] = best;
        changed = true;
      }
    }
  }
  goes_on_.assign(size(), false);
  for (size_t i = 0; i < next_.size(); ++i) {
    if (next_[i] != kNone && distance_[next_[i]] >= kForever) next_[i] = kNone;
    if (next_[i] != kNone) goes_on_[i / 256] = true;
  }
}

uint32_t QuotedCost(uint8_t byte) {
  switch (byte) {
    case '"':
    case '\\':
    case '\b':
    case '\f':
    case '\n':
    case '\r':
    case '\t':
      return 2;
    default:
      return byte < 0x20 ? kForever : 1;
  }
}

int Unescaped(uint8_t letter) {
  switch (letter) {
    case '"':
    case '\\':
    case '/':
      return letter;
    case 'b':
      return '\b';
    case 'f':
      return '\f';
    case 'n':
      return '\n';
    case 'r':
      return '\r';
    case 't':
      return '\t';
    default:
      return -1;
  }
}

}  // namespace expertmesh::model

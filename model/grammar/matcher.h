// Where an answer stands in its grammar, and which tokens may come next. Replaying the same tokens
// gives the same state.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "model/grammar/grammar.h"
#include "model/grammar/token_trie.h"

namespace expertmesh::model {

/// One owner. A set of readings of the text so far, each of which can still be completed. Too many
/// readings at once: the later ones are given up, which is always sound.
class Matcher {
 public:
  static constexpr size_t kReadingsMax = 512;
  static constexpr uint32_t kDepthMax = 64;  // deeper values are closed as soon as can be

  /// `trie` outlives it.
  Matcher(std::shared_ptr<const Grammar> grammar, const TokenTrie& trie);

  /// The ordinary and special tokens that may come next. `remaining`: how many tokens may still
  /// come, this one and an end token included; from there the set holds only what lets the text be
  /// completed within them, as far as that is possible. Never empty unless complete() or the
  /// vocabulary lacks single bytes.
  TokenSet Allowed(uint64_t remaining);
  /// Takes a token; false, and no change, if it may not come here.
  bool Accept(uint32_t token);

  /// The text is a whole of the grammar.
  bool complete() const;
  /// It is, and nothing may follow.
  bool finished() const;
  /// Fewest bytes that complete it.
  uint32_t shortest_rest() const;

 private:
  static constexpr uint32_t kNone = UINT32_MAX;

  // One reading: the innermost node and how far in it is. What the fields mean is the node's matter
  // (matcher_json.cc). `parent` is an index into frames_.
  struct Reading {
    NodeId node = kNone;  // kNone: nothing is open, the text is whole
    uint32_t parent = kNone;
    uint32_t a = 0;
    uint32_t b = 0;
    uint64_t c = 0;
    uint8_t phase = 0;
    uint8_t sub = 0;
    bool operator==(const Reading&) const = default;
  };
  using Readings = std::vector<Reading>;
  // What goes on when an inner value ends.
  struct Frame {
    Reading resume;
    uint32_t rest = 0;   // bytes from there to the end of the text
    uint32_t depth = 0;  // arrays and objects
  };
  // The characters of an object's keys that are not in its list, each behind the one before.
  struct KeyChar {
    uint32_t before = kNone;
    uint8_t byte = 0;
  };
  // Keys that an object has already.
  struct UsedKey {
    uint32_t before = kNone;
    uint32_t text = kNone;  // into key_chars_
  };
  struct Mark {
    size_t frames;
    size_t key_chars;
    size_t used_keys;
  };

  // matcher.cc
  void StepAll(const Readings& from, uint8_t byte, Readings& to);
  void StepToken(const Readings& from, uint32_t token, Readings& to);
  void Step(const Reading& reading, uint8_t byte, Readings& out);
  void Enter(NodeId node, uint32_t parent, Readings& out);
  void Complete(uint32_t parent, Readings& out);
  void Put(const Reading& reading, Readings& out);
  uint32_t Push(const Reading& resume);
  uint32_t RestOf(const Reading& reading) const;
  uint32_t OwnRest(const Reading& reading) const;
  uint32_t LeastRest(const Readings& readings) const;
  Mark SetMark() const { return {frames_.size(), key_chars_.size(), used_keys_.size()}; }
  void Undo(const Mark& mark);
  void Walk(const Trie& trie, const Readings& from, int64_t rest_max, TokenSet& allowed);
  void AllowPlain(const Reading& reading, int64_t rest_max, TokenSet& allowed) const;
  void AllowTokens(int64_t rest_max, TokenSet& allowed);

  // matcher_json.cc
  void StepMachine(const MachineNode& node, Reading reading, uint8_t byte, Readings& out);
  void StepString(const StringNode& node, Reading reading, uint8_t byte, Readings& out);
  void StepNumber(const NumberNode& node, Reading reading, uint8_t byte, Readings& out);
  void StepArray(const ArrayNode& node, Reading reading, uint8_t byte, Readings& out);
  void EnterItem(const ArrayNode& node, const Reading& reading, uint8_t byte, Readings& out);
  void StepInto(NodeId node, const Reading& resume, uint8_t byte, Readings& out);
  void StepObject(const ObjectNode& node, Reading reading, uint8_t byte, Readings& out);
  void EnterKeys(const ObjectNode& node, Reading reading, Readings& out);
  void StepKey(const ObjectNode& node, Reading reading, uint8_t byte, Readings& out);
  void StepFreeKey(const ObjectNode& node, Reading reading, uint8_t byte, Readings& out);
  void EnterValue(const ObjectNode& node, const Reading& reading, uint8_t byte, Readings& out);
  std::string KeyText(uint32_t text) const;
  bool KeyTaken(const ObjectNode& node, const Reading& reading, const std::string& key) const;
  uint32_t MachineRest(const MachineNode& node, const Reading& reading) const;
  uint32_t ScalarRest(const Node& node, const Reading& reading) const;
  uint32_t ArrayRest(const ArrayNode& node, const Reading& reading) const;
  uint32_t ObjectRest(const ObjectNode& node, const Reading& reading) const;
  bool TakesPlain(const Reading& reading, int64_t rest_max) const;

  std::shared_ptr<const Grammar> grammar_;
  const TokenTrie* trie_;
  Readings readings_;
  std::vector<Frame> frames_;
  std::vector<KeyChar> key_chars_;
  std::vector<UsedKey> used_keys_;
  size_t step_frames_ = 0;    // frames_ from here on are of this step
  uint32_t step_budget_ = 0;  // Enter calls left in this step
};

}  // namespace expertmesh::model

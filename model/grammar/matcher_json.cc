// The JSON terminals of the matcher: what each byte does to a reading inside a value.
#include <algorithm>

#include "model/grammar/matcher.h"

namespace expertmesh::model {
namespace {

// Reading::phase of values.
enum Phase : uint8_t {
  kOpen = 0,  // nothing is written yet
  kInside,    // strings
  kFirst,     // behind [ or {
  kNext,      // behind a comma
  kAfter,     // behind a value
  kKey,       // in a listed key: a = which, b = bytes of it
  kFreeKey,   // in another key: b = its text, into key_chars_
  kColon,     // behind a key; b = 1: of another key
  kValue,     // behind the colon; b likewise
};

// Reading::sub inside a string: how a character or an escape goes on.
enum Char : uint8_t {
  kWhole = 0,
  kMore1,
  kMore2,
  kMore3,
  kAfterE0,
  kAfterED,
  kAfterF0,
  kAfterF4,
  kEscape,
  kHex1,  // four digits to come
  kHex2,
  kHex3,
  kHex4,
  kHexAfterD,  // \ud: surrogates are not written
  kBroken = 255,
};

constexpr uint32_t kCharRest[] = {0, 1, 2, 3, 2, 2, 3, 3, 1, 4, 3, 2, 1, 3};

bool Between(uint8_t byte, int low, int high) { return byte >= low && byte <= high; }

// The state behind the first byte of a character.
Char BeginChar(uint8_t byte) {
  if (byte < 0x80) return byte < 0x20 ? kBroken : kWhole;
  if (Between(byte, 0xC2, 0xDF)) return kMore1;
  if (byte == 0xE0) return kAfterE0;
  if (byte == 0xED) return kAfterED;
  if (Between(byte, 0xE1, 0xEF)) return kMore2;
  if (byte == 0xF0) return kAfterF0;
  if (byte == 0xF4) return kAfterF4;
  return Between(byte, 0xF1, 0xF3) ? kMore3 : kBroken;
}

Char ContinueHex(Char state, uint8_t byte) {
  const bool d = byte == 'd' || byte == 'D';
  const bool hex = Between(byte, '0', '9') || Between(byte, 'a', 'f') || Between(byte, 'A', 'F');
  if (!hex) return kBroken;
  if (state == kHex1) return d ? kHexAfterD : kHex2;
  if (state == kHexAfterD) return Between(byte, '0', '7') ? kHex3 : kBroken;
  if (state == kHex2) return kHex3;
  return state == kHex3 ? kHex4 : kWhole;
}

Char ContinueChar(Char state, uint8_t byte) {
  switch (state) {
    case kMore1:
      return Between(byte, 0x80, 0xBF) ? kWhole : kBroken;
    case kMore2:
      return Between(byte, 0x80, 0xBF) ? kMore1 : kBroken;
    case kMore3:
      return Between(byte, 0x80, 0xBF) ? kMore2 : kBroken;
    case kAfterE0:
      return Between(byte, 0xA0, 0xBF) ? kMore1 : kBroken;
    case kAfterED:
      return Between(byte, 0x80, 0x9F) ? kMore1 : kBroken;
    case kAfterF0:
      return Between(byte, 0x90, 0xBF) ? kMore2 : kBroken;
    case kAfterF4:
      return Between(byte, 0x80, 0x8F) ? kMore2 : kBroken;
    case kEscape:
      if (byte == 'u') return kHex1;
      return Unescaped(byte) >= 0 ? kWhole : kBroken;
    default:
      return ContinueHex(state, byte);
  }
}

// White space between the parts of a value: one blank, or a line end and up to so many blanks.
// `sub` counts it. True if the byte is more of it.
constexpr uint8_t kIndentMax = 32;
bool TakeSpace(uint8_t& sub, uint8_t byte, bool lines) {
  if (byte == ' ' && (sub == 0 || (sub >= 2 && sub < 2 + kIndentMax))) {
    sub = sub == 0 ? 1 : static_cast<uint8_t>(sub + 1);
    return true;
  }
  if (byte == '\n' && sub == 0 && lines) {
    sub = 2;
    return true;
  }
  return false;
}

}  // namespace

void Matcher::StepMachine(const MachineNode& node, Reading reading, uint8_t byte, Readings& out) {
  if (reading.phase == kOpen) {
    if (byte != '"') return;
    reading.phase = kInside;
    reading.a = ByteMachine::kStart;
    return Put(reading, out);
  }
  int content = byte;
  if (node.quoted) {
    if (reading.sub == 1) {  // behind a backslash
      content = Unescaped(byte);
    } else if (byte == '"') {
      if (node.machine->accepting(reading.a)) Complete(reading.parent, out);
      return;
    } else if (byte == '\\') {
      reading.sub = 1;
      if (MachineRest(node, reading) < kForever) Put(reading, out);
      return;
    } else if (byte < 0x20) {
      return;
    }
  }
  if (content < 0) return;
  const ByteMachine::State next = node.machine->Next(reading.a, static_cast<uint8_t>(content));
  if (next == ByteMachine::kNone) return;
  reading.sub = 0;
  reading.a = next;
  if (!node.quoted && node.machine->accepting(next)) Complete(reading.parent, out);
  if (node.quoted || node.machine->goes_on(next)) Put(reading, out);
}

uint32_t Matcher::MachineRest(const MachineNode& node, const Reading& reading) const {
  if (reading.phase == kOpen) return grammar_->shortest(reading.node);
  const uint32_t close = node.quoted ? 1 : 0;
  if (reading.sub == 0) return node.machine->distance(reading.a) + close;
  uint32_t best = kForever;  // behind a backslash
  for (const char letter : {'"', '\\', '/', 'b', 'f', 'n', 'r', 't'}) {
    const auto content = static_cast<uint8_t>(Unescaped(static_cast<uint8_t>(letter)));
    const ByteMachine::State next = node.machine->Next(reading.a, content);
    if (next != ByteMachine::kNone) best = std::min(best, node.machine->distance(next));
  }
  return SaturatingAdd(best, 1 + close);
}

void Matcher::StepString(const StringNode& node, Reading reading, uint8_t byte, Readings& out) {
  if (reading.phase == kOpen) {
    if (byte != '"') return;
    reading.phase = kInside;
    return Put(reading, out);
  }
  if (reading.sub != kWhole) {
    const Char next = ContinueChar(static_cast<Char>(reading.sub), byte);
    if (next == kBroken) return;
    reading.sub = next;
    return Put(reading, out);
  }
  if (byte == '"') {
    if (reading.a >= node.least) Complete(reading.parent, out);
    return;
  }
  const Char next = byte == '\\' ? kEscape : BeginChar(byte);
  if (next == kBroken || reading.a >= node.most) return;
  if (node.most != kNoLimit || reading.a < node.least) ++reading.a;
  reading.sub = next;
  Put(reading, out);
}

void Matcher::StepNumber(const NumberNode& node, Reading reading, uint8_t byte, Readings& out) {
  NumberPrefix prefix;
  prefix.phase = static_cast<NumberPrefix::Phase>(reading.phase);
  prefix.negative = reading.b != 0;
  prefix.fraction = reading.sub;
  prefix.digits = reading.c;
  const auto next = Extend(node.range, prefix, byte);
  if (!next) return;
  reading.phase = static_cast<uint8_t>(next->phase);
  reading.b = next->negative ? 1 : 0;
  reading.sub = next->fraction;
  reading.c = next->digits;
  if (ShortestRest(node.range, *next) == 0) Complete(reading.parent, out);
  Put(reading, out);
}

uint32_t Matcher::ScalarRest(const Node& node, const Reading& reading) const {
  if (const auto* number = std::get_if<NumberNode>(&node)) {
    NumberPrefix prefix;
    prefix.phase = static_cast<NumberPrefix::Phase>(reading.phase);
    prefix.negative = reading.b != 0;
    prefix.fraction = reading.sub;
    prefix.digits = reading.c;
    return ShortestRest(number->range, prefix);
  }
  const auto& string = std::get<StringNode>(node);
  if (reading.phase == kOpen) return grammar_->shortest(reading.node);
  return 1 + kCharRest[reading.sub] + (string.least > reading.a ? string.least - reading.a : 0);
}

uint32_t Matcher::ArrayRest(const ArrayNode& node, const Reading& reading) const {
  if (reading.phase == kOpen) return grammar_->shortest(reading.node);
  const auto of = [&](NodeId id) { return grammar_->shortest(id); };
  const uint32_t count = reading.a;
  if (count >= node.least && reading.phase != kNext) return 1;
  // Elements with a comma before each, but for the one that has its comma or needs none.
  const uint32_t end = std::max(node.least, count + (reading.phase == kNext ? 1 : 0));
  const uint32_t items = node.ItemsLength(count, end, of);
  const uint32_t commas = end - count - (reading.phase == kAfter ? 0 : 1);
  return SaturatingAdd(SaturatingAdd(items, commas), 1);
}

void Matcher::EnterItem(const ArrayNode& node, const Reading& reading, uint8_t byte,
                        Readings& out) {
  const auto item = node.ItemAt(reading.a);
  if (reading.a >= node.most || !item || grammar_->shortest(*item) >= kForever) return;
  Reading resume = reading;
  resume.phase = kAfter;
  resume.sub = 0;
  const bool counted =
      node.most != kNoLimit || reading.a < node.least || reading.a < node.prefix.size();
  if (counted) ++resume.a;
  StepInto(*item, resume, byte, out);
}

// The first byte of a value inside another.
void Matcher::StepInto(NodeId node, const Reading& resume, uint8_t byte, Readings& out) {
  Readings entered;
  Enter(node, Push(resume), entered);
  for (const Reading& reading : entered) Step(reading, byte, out);
}

void Matcher::StepArray(const ArrayNode& node, Reading reading, uint8_t byte, Readings& out) {
  if (reading.phase == kOpen) {
    if (byte != '[') return;
    reading.phase = kFirst;
    return Put(reading, out);
  }
  if (TakeSpace(reading.sub, byte, true)) {
    // Behind a value white space leads to the end only.
    if (reading.phase != kAfter || reading.a >= node.least) Put(reading, out);
    return;
  }
  if (byte == ']') {
    if (reading.phase != kNext && reading.a >= node.least) Complete(reading.parent, out);
  } else if (reading.phase != kAfter) {
    EnterItem(node, reading, byte, out);
  } else if (byte == ',' && reading.sub == 0 && reading.a < node.most) {
    const auto item = node.ItemAt(reading.a);
    if (!item || grammar_->shortest(*item) >= kForever) return;
    reading.phase = kNext;
    Put(reading, out);
  }
}

std::string Matcher::KeyText(uint32_t text) const {
  std::string key;
  for (; text != kNone; text = key_chars_[text].before) {
    key.push_back(static_cast<char>(key_chars_[text].byte));
  }
  std::reverse(key.begin(), key.end());
  return key;
}

bool Matcher::KeyTaken(const ObjectNode& node, const Reading& reading,
                       const std::string& key) const {
  for (const ObjectProperty& property : node.properties) {
    if (property.name == key) return true;
  }
  for (auto used = static_cast<uint32_t>(reading.c); used != 0;
       used = used_keys_[used - 1].before) {
    if (KeyText(used_keys_[used - 1].text) == key) return true;
  }
  return false;
}

uint32_t Matcher::ObjectRest(const ObjectNode& node, const Reading& reading) const {
  const uint32_t from =
      std::min<uint32_t>(reading.a, static_cast<uint32_t>(node.properties.size()));
  const auto behind = [&](uint32_t value, uint32_t index) {
    return SaturatingAdd(SaturatingAdd(value, node.required_from[index]), 1);
  };
  const auto value_of = [&](bool free) {
    return grammar_->shortest(free ? *node.additional : node.properties[reading.a - 1].value);
  };
  switch (reading.phase) {
    case kOpen:
      return grammar_->shortest(reading.node);
    case kFirst:  // the first key needs no comma
      return std::max(node.required_from[from], uint32_t{1});
    case kAfter:
      return SaturatingAdd(node.required_from[from], 1);
    case kNext: {
      if (node.required_from[from] > 0) return node.required_from[from];
      uint32_t best = node.cheapest_from[from];
      if (node.additional) {
        const uint32_t key = KeyTaken(node, reading, "") ? 3 : 2;
        best = std::min(best, SaturatingAdd(key + 1, grammar_->shortest(*node.additional)));
      }
      return SaturatingAdd(best, 1);
    }
    case kKey: {
      const ObjectProperty& property = node.properties[reading.a];
      const auto key = static_cast<uint32_t>(property.key.size()) - reading.b + 1;
      return behind(SaturatingAdd(key, grammar_->shortest(property.value)), reading.a + 1);
    }
    case kFreeKey: {
      const bool taken = reading.sub == kWhole && KeyTaken(node, reading, KeyText(reading.b));
      const uint32_t key = kCharRest[reading.sub] + (taken ? 2 : 1) + 1;
      return behind(SaturatingAdd(key, grammar_->shortest(*node.additional)), from);
    }
    case kColon:
      return behind(SaturatingAdd(value_of(reading.b != 0), 1), from);
    default:  // kValue
      return behind(value_of(reading.b != 0), from);
  }
}

// The quote that begins a key: all keys that may come now.
void Matcher::EnterKeys(const ObjectNode& node, Reading reading, Readings& out) {
  reading.sub = 0;
  const uint32_t required = node.next_required[reading.a];
  const auto count = static_cast<uint32_t>(node.properties.size());
  for (uint32_t j = reading.a; j < count && j <= required; ++j) {
    if (grammar_->shortest(node.properties[j].value) >= kForever) continue;
    Reading key = reading;
    key.phase = kKey;
    key.a = j;
    key.b = 1;
    Put(key, out);
  }
  if (required < count || !node.additional) return;
  if (grammar_->shortest(*node.additional) >= kForever) return;
  reading.phase = kFreeKey;
  reading.a = count;
  reading.b = kNone;
  Put(reading, out);
}

void Matcher::StepFreeKey(const ObjectNode& node, Reading reading, uint8_t byte, Readings& out) {
  if (reading.sub == kWhole && byte == '"') {
    if (KeyTaken(node, reading, KeyText(reading.b))) return;
    used_keys_.push_back({static_cast<uint32_t>(reading.c), reading.b});
    reading.c = used_keys_.size();
    reading.phase = kColon;
    reading.b = 1;
    return Put(reading, out);
  }
  const Char next = reading.sub != kWhole ? ContinueChar(static_cast<Char>(reading.sub), byte)
                    : byte == '\\'        ? kBroken
                                          : BeginChar(byte);
  if (next == kBroken) return;
  key_chars_.push_back({reading.b, byte});
  reading.b = static_cast<uint32_t>(key_chars_.size() - 1);
  reading.sub = next;
  Put(reading, out);
}

void Matcher::StepKey(const ObjectNode& node, Reading reading, uint8_t byte, Readings& out) {
  const std::string& key = node.properties[reading.a].key;
  if (static_cast<uint8_t>(key[reading.b]) != byte) return;
  if (++reading.b == key.size()) {
    reading.phase = kColon;
    ++reading.a;
    reading.b = 0;
  }
  Put(reading, out);
}

void Matcher::EnterValue(const ObjectNode& node, const Reading& reading, uint8_t byte,
                         Readings& out) {
  Reading resume = reading;
  resume.phase = kAfter;
  resume.b = 0;
  resume.sub = 0;
  StepInto(reading.b != 0 ? *node.additional : node.properties[reading.a - 1].value, resume, byte,
           out);
}

void Matcher::StepObject(const ObjectNode& node, Reading reading, uint8_t byte, Readings& out) {
  switch (reading.phase) {
    case kKey:
      return StepKey(node, reading, byte, out);
    case kFreeKey:
      return StepFreeKey(node, reading, byte, out);
    case kOpen:
      if (byte != '{') return;
      reading.phase = kFirst;
      return Put(reading, out);
    case kColon:
      if (byte != ':') return;
      reading.phase = kValue;
      return Put(reading, out);
    case kValue:
      if (TakeSpace(reading.sub, byte, false)) return Put(reading, out);
      return EnterValue(node, reading, byte, out);
    default:
      break;
  }
  const bool closes = node.next_required[reading.a] == node.properties.size();
  if (TakeSpace(reading.sub, byte, true)) {
    if (reading.phase != kAfter || closes) Put(reading, out);
  } else if (byte == '}') {
    if (reading.phase != kNext && closes) Complete(reading.parent, out);
  } else if (byte == '"') {
    if (reading.phase != kAfter) EnterKeys(node, reading, out);
  } else if (byte == ',' && reading.phase == kAfter && reading.sub == 0) {
    reading.phase = kNext;
    if (ObjectRest(node, reading) < kForever) Put(reading, out);
  }
}

bool Matcher::TakesPlain(const Reading& reading, int64_t rest_max) const {
  if (reading.sub != kWhole) return false;
  const Node& node = grammar_->node(reading.node);
  if (std::holds_alternative<StringNode>(node)) return reading.phase == kInside;
  if (!std::holds_alternative<ObjectNode>(node) || reading.phase != kFreeKey) return false;
  return RestOf(reading) + 1 <= rest_max;  // the longer key may need a character more
}

void Matcher::AllowPlain(const Reading& reading, int64_t rest_max, TokenSet& allowed) const {
  const auto* string = std::get_if<StringNode>(&grammar_->node(reading.node));
  if (string == nullptr) {
    allowed.AddAll(trie_->PlainUpTo(TokenTrie::kPlainMax));
    return;
  }
  const uint32_t behind = reading.parent == kNone ? 0 : frames_[reading.parent].rest;
  const int64_t spare = rest_max - 1 - behind;
  if (spare < 0) return;
  const uint32_t room = string->most == kNoLimit ? TokenTrie::kPlainMax : string->most - reading.a;
  const int64_t missing =
      string->least > reading.a ? static_cast<int64_t>(string->least) - reading.a : 0;
  const int64_t too_few = std::clamp<int64_t>(missing - spare - 1, 0, TokenTrie::kPlainMax);
  allowed.AddDifference(trie_->PlainUpTo(room), trie_->PlainUpTo(static_cast<uint32_t>(too_few)));
}

}  // namespace expertmesh::model

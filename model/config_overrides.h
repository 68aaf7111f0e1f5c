// Keys of config.json replaced when a process starts (--override): the same weights, measured with
// one choice changed. They are part of the revision, so that overridden and plain workers never
// mix.
#pragma once

#include <map>
#include <span>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace expertmesh::model {

/// Immutable; none by default.
class ConfigOverrides {
 public:
  ConfigOverrides() = default;
  /// Each word is "key=value" with a key of config.json's top level. The value is JSON
  /// ("index_topk=32", "engram_layer_ids=[]", "index_topk=null", which counts as absent); what is
  /// no JSON is a string of its own. kInvalidArgument naming the word; that a model reads the key
  /// and takes the value is ParseConfig's to say.
  static absl::StatusOr<ConfigOverrides> Parse(std::span<const std::string> words);

  bool empty() const { return values_.empty(); }
  /// JSON texts by key.
  const std::map<std::string, std::string>& values() const { return values_; }
  /// {"engram_layer_ids":[],"index_topk":32}, the same for the same overrides in any order.
  std::string Json() const;
  /// "--override index_topk=32", for messages; empty without any.
  std::string Flags() const;

 private:
  std::map<std::string, std::string> values_;
};

}  // namespace expertmesh::model

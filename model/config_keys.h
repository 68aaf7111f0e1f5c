// Reads keys of a JSON object of config.json one by one; every error names key and value.
#pragma once

#include <boost/json/object.hpp>
#include <boost/json/serialize.hpp>
#include <cmath>
#include <cstdint>
#include <functional>
#include <set>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "services/base/status.h"

namespace expertmesh::model {

inline absl::Status BadConfig(std::string_view text) {
  return base::Error(base::Reason::kBadConfig, text);
}

// The value as it stands in the file, cut to a length that fits in a message.
inline std::string Shown(const boost::json::value& value) {
  std::string text = boost::json::serialize(value);
  if (text.size() > 60) text = text.substr(0, 57) + "...";
  return text;
}

/// Keeps the first error. A key with the value null counts as absent.
class KeyReader {
 public:
  explicit KeyReader(const boost::json::object& object) : object_(object) {}

  const absl::Status& status() const { return status_; }

  const boost::json::value* Find(std::string_view key) const {
    asked_.emplace(key);
    const auto found = object_.find(boost::json::string_view(key.data(), key.size()));
    return found == object_.end() || found->value().is_null() ? nullptr : &found->value();
  }

  void Fail(std::string text) {
    if (status_.ok()) status_ = BadConfig(text);
  }

  void Refuse(std::string_view key, std::string_view wanted) {
    const boost::json::value* value = Find(key);
    Fail(absl::StrCat("key \"", std::string(key), "\" is ", value ? Shown(*value) : "missing", ": ",
                      std::string(wanted)));
  }

  template <class T>
  T Refused(T value_to_go_on_with, std::string_view key, std::string_view wanted) {
    Refuse(key, wanted);
    return value_to_go_on_with;
  }

  uint64_t Integer(std::string_view key, uint64_t low, uint64_t high) {
    const boost::json::value* value = Find(key);
    const std::string wanted = absl::StrCat("must be an integer from ", low, " to ", high);
    if (!value) return Refused(low, key, wanted);
    if (value->is_uint64() && value->get_uint64() >= low && value->get_uint64() <= high) {
      return value->get_uint64();
    }
    if (value->is_int64() && value->get_int64() >= 0) {
      const auto number = static_cast<uint64_t>(value->get_int64());
      if (number >= low && number <= high) return number;
    }
    return Refused(low, key, wanted);
  }

  uint64_t IntegerOr(std::string_view key, uint64_t fallback, uint64_t low, uint64_t high) {
    return Find(key) ? Integer(key, low, high) : fallback;
  }

  double NumberOr(std::string_view key, double fallback, double low, double high) {
    const boost::json::value* value = Find(key);
    if (!value) return fallback;
    double number = std::nan("");
    if (value->is_double()) number = value->get_double();
    if (value->is_int64()) number = static_cast<double>(value->get_int64());
    if (value->is_uint64()) number = static_cast<double>(value->get_uint64());
    if (number >= low && number <= high) return number;  // false for NaN
    return Refused(fallback, key, absl::StrCat("must be a number from ", low, " to ", high));
  }

  bool FlagOr(std::string_view key, bool fallback) {
    const boost::json::value* value = Find(key);
    if (!value) return fallback;
    if (value->is_bool()) return value->get_bool();
    return Refused(fallback, key, "must be true or false");
  }

  std::string TextOr(std::string_view key, std::string_view fallback) {
    const boost::json::value* value = Find(key);
    if (!value) return std::string(fallback);
    if (value->is_string()) return {value->get_string().data(), value->get_string().size()};
    return Refused(std::string(fallback), key, "must be a string");
  }

  void RequireText(std::string_view key, std::string_view only) {
    if (TextOr(key, only) != only) {
      Refuse(key, absl::StrCat("only \"", std::string(only), "\" is supported"));
    }
  }

  void RequireFlag(std::string_view key, bool only) {
    if (FlagOr(key, only) != only) {
      Refuse(key, absl::StrCat("only ", only ? "true" : "false", " is supported"));
    }
  }

  void RequireAbsent(std::string_view key, std::string_view why) {
    if (Find(key)) Refuse(key, why);
  }

  uint32_t Size(std::string_view key, uint32_t low, uint32_t high) {
    return static_cast<uint32_t>(Integer(key, low, high));
  }

  uint32_t SizeOr(std::string_view key, uint32_t fallback, uint32_t low, uint32_t high) {
    return static_cast<uint32_t>(IntegerOr(key, fallback, low, high));
  }

  /// Whether the key stands there, be it with the value null.
  bool Stands(std::string_view key) const {
    asked_.emplace(key);
    return object_.contains(boost::json::string_view(key.data(), key.size()));
  }

  /// Whether anybody has looked the key up.
  bool WasAsked(std::string_view key) const { return asked_.contains(key); }

 private:
  const boost::json::object& object_;
  mutable std::set<std::string, std::less<>> asked_;
  absl::Status status_;
};

}  // namespace expertmesh::model

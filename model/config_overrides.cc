#include "model/config_overrides.h"

#include <boost/json/serialize.hpp>
#include <boost/json/string.hpp>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "model/config_json.h"
#include "services/base/status.h"

namespace expertmesh::model {
namespace {

namespace json = boost::json;

constexpr size_t kWordBytesMax = 4096;
constexpr size_t kShownBytesMax = 60;

// How a value begins that was meant as JSON: an error in it is no string.
bool LooksLikeJson(std::string_view text) {
  return text.empty() ||
         std::string_view("[{\"-0123456789").find(text[0]) != std::string_view::npos;
}

absl::Status Bad(const std::string& word, std::string_view why) {
  std::string shown = word.substr(0, kShownBytesMax);
  if (shown.size() < word.size()) shown += "...";
  return base::Error(base::Reason::kInvalidArgument,
                     absl::StrCat("--override ", shown, ": ", std::string(why)));
}

// The JSON text of a value, without spaces.
absl::StatusOr<std::string> ValueText(const std::string& word, const std::string& text) {
  const auto value = ParseJson(text, base::Reason::kInvalidArgument);
  if (value.ok()) return json::serialize(*value);
  if (LooksLikeJson(text))
    return Bad(word, absl::StrCat("the value is not JSON: ", value.status().message()));
  return json::serialize(json::value(json::string_view(text.data(), text.size())));
}

}  // namespace

absl::StatusOr<ConfigOverrides> ConfigOverrides::Parse(std::span<const std::string> words) {
  ConfigOverrides overrides;
  for (const std::string& word : words) {
    if (word.size() > kWordBytesMax) {
      return Bad(word, absl::StrCat("longer than ", kWordBytesMax, " bytes"));
    }
    const size_t sign = word.find('=');
    if (sign == std::string::npos || sign == 0) {
      return Bad(word, "expected key=value, e.g. index_topk=32");
    }
    std::string key = word.substr(0, sign);
    EM_ASSIGN_OR_RETURN(std::string value, ValueText(word, word.substr(sign + 1)));
    if (!overrides.values_.emplace(std::move(key), std::move(value)).second) {
      return Bad(word, "the key is overridden twice");
    }
  }
  return overrides;
}

std::string ConfigOverrides::Json() const {
  return absl::StrCat("{",
                      absl::StrJoin(values_, ",",
                                    [](std::string* out, const auto& entry) {
                                      absl::StrAppend(out,
                                                      json::serialize(json::string(
                                                          entry.first.data(), entry.first.size())),
                                                      ":", entry.second);
                                    }),
                      "}");
}

std::string ConfigOverrides::Flags() const {
  return absl::StrJoin(values_, " ", [](std::string* out, const auto& entry) {
    absl::StrAppend(out, "--override ", entry.first, "=", entry.second.substr(0, kShownBytesMax));
  });
}

}  // namespace expertmesh::model

#include <array>
#include <utility>

#include "absl/strings/str_cat.h"
#include "model/grammar/schema_parts.h"

namespace expertmesh::model::schema {
namespace {

#define EM_DATE                                                      \
  "(?:[12][0-9]{3}-(?:(?:0[13578]|1[02])-(?:0[1-9]|[12][0-9]|3[01])" \
  "|(?:0[469]|11)-(?:0[1-9]|[12][0-9]|30)|02-(?:0[1-9]|1[0-9]|2[0-8])))"
#define EM_TIME                                                     \
  "(?:(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](?:\\.[0-9]{1,6})?" \
  "(?:Z|[+-](?:[01][0-9]|2[0-3]):[0-5][0-9]))"
#define EM_LABEL "[A-Za-z0-9](?:[A-Za-z0-9-]{0,30}[A-Za-z0-9])?"
#define EM_HOST EM_LABEL "(?:\\." EM_LABEL "){0,3}"
#define EM_BYTE "(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"

// RFC 3339 dates and times, RFC 1123 names, RFC 4122 and 4291 numbers, each as a subset that every
// checker accepts: years 1000 to 2999 without 29 February, e-mail addresses without quotes, IPv6
// addresses with all eight parts.
constexpr std::array<std::pair<std::string_view, std::string_view>, 9> kFormats = {{
    {"date", "^" EM_DATE "$"},
    {"time", "^" EM_TIME "$"},
    {"date-time", "^" EM_DATE "T" EM_TIME "$"},
    {"duration",
     "^P(?:[0-9]{1,4}W|(?:[0-9]{1,4}Y(?:[0-9]{1,2}M(?:[0-9]{1,3}D)?)?|[0-9]{1,2}M(?:[0-9]{1,3}D)?"
     "|[0-9]{1,3}D)(?:T[0-9]{1,2}H(?:[0-9]{1,2}M(?:[0-9]{1,2}S)?)?)?"
     "|T(?:[0-9]{1,2}H(?:[0-9]{1,2}M(?:[0-9]{1,2}S)?)?|[0-9]{1,2}M(?:[0-9]{1,2}S)?|[0-9]{1,2}S))$"},
    {"email", "^[A-Za-z0-9_+-]{1,32}(?:\\.[A-Za-z0-9_+-]{1,16}){0,2}@" EM_HOST "$"},
    {"hostname", "^" EM_HOST "$"},
    {"ipv4", "^" EM_BYTE "(?:\\." EM_BYTE "){3}$"},
    {"ipv6", "^[0-9A-Fa-f]{1,4}(?::[0-9A-Fa-f]{1,4}){7}$"},
    {"uuid", "^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$"},
}};

#undef EM_DATE
#undef EM_TIME
#undef EM_LABEL
#undef EM_HOST
#undef EM_BYTE

}  // namespace

absl::StatusOr<std::string_view> PatternOfFormat(std::string_view format, const Place& place) {
  std::string known;
  for (const auto& [name, pattern] : kFormats) {
    if (name == format) return pattern;
    absl::StrAppend(&known, known.empty() ? "" : ", ", std::string(name));
  }
  return Refused(place, "format", absl::StrCat("is none of ", known));
}

}  // namespace expertmesh::model::schema

#include "gateway/core/sampling_defaults.h"

#include <boost/json.hpp>

#include "gateway/core/request_fields.h"
#include "services/base/status.h"

namespace expertmesh::gateway {

namespace json = boost::json;

absl::StatusOr<SamplingDefaults> ParseSamplingDefaults(std::string_view text) {
  json::value parsed;
  if (const Failure bad = ParseBody(text, {}, parsed)) {
    return base::Error(base::Reason::kInvalidArgument, bad->message);
  }
  const json::object& fields = parsed.as_object();
  SamplingDefaults out;
  Failure bad;
  const auto take_float = [&](const char* key, double low, double high, float& value) {
    const json::value* found = FindField(fields, key);
    if (found && !bad) bad = TakeFloat(key, *found, low, high, value);
  };
  take_float("temperature", 0, 2, out.temperature);
  take_float("top_p", 1e-6, 1, out.top_p);
  take_float("min_p", 0, 1, out.min_p);
  take_float("repetition_penalty", 1e-6, 100, out.repetition_penalty);
  if (const json::value* found = FindField(fields, "top_k"); found && !bad) {
    bad = TakeCount("top_k", *found, 0, 1 << 24, out.top_k);
  }
  if (const json::value* found = FindField(fields, "do_sample"); found && !bad) {
    bool sample = true;
    bad = TakeBool("do_sample", *found, sample);
    if (!sample) out.temperature = 0;
  }
  if (bad) return base::Error(base::Reason::kInvalidArgument, bad->message);
  return out;
}

}  // namespace expertmesh::gateway

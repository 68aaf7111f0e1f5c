#include "gateway/request_log.h"

#include <spdlog/spdlog.h>

#include "absl/strings/str_cat.h"
#include "services/base/random.h"

namespace expertmesh::gateway {

void LogRequest(const RequestRecord& record) {
  const auto time = std::chrono::duration_cast<std::chrono::milliseconds>(
      std::chrono::steady_clock::now() - record.start);
  std::string line;
  const auto add = [&](const char* key, const std::string& value) {
    if (!value.empty()) absl::StrAppend(&line, " ", key, "=", value);
  };
  add("id", record.request_id);
  add("endpoint", record.endpoint);
  add("status", record.status);
  add("reason", record.reason);
  add("worker", record.worker);
  spdlog::info("request{} prompt_tokens={} completion_tokens={} ms={}", line, record.prompt_tokens,
               record.completion_tokens, time.count());
}

std::string NewRequestId() {
  return absl::StrCat("req-", absl::Hex(base::EntropyU64(), absl::kZeroPad16));
}

}  // namespace expertmesh::gateway

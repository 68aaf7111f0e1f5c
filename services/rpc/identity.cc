#include "services/rpc/identity.h"

#include <algorithm>
#include <string_view>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "services/base/status.h"

namespace expertmesh::rpc {
namespace {

constexpr char kTenantKey[] = "x-expertmesh-tenant";
constexpr char kPrincipalKey[] = "x-expertmesh-principal";
constexpr char kRequestIdKey[] = "x-request-id";
constexpr size_t kValueBytesMax = 128;
constexpr auto kNoDeadline = std::chrono::hours(24);

absl::Status Take(const grpc::ServerContextBase& context, const char* key, std::string& value) {
  const auto it = context.client_metadata().find(key);
  if (it == context.client_metadata().end()) return absl::OkStatus();
  const std::string_view text(it->second.data(), it->second.size());
  const bool clean = std::all_of(text.begin(), text.end(), [](unsigned char c) {
    return absl::ascii_isalnum(c) || c == '.' || c == '_' || c == '-';
  });
  if (text.empty() || text.size() > kValueBytesMax || !clean) {
    return base::Error(base::Reason::kBadMetadata,
                       absl::StrCat("metadata ", key, " must be 1 to ", kValueBytesMax,
                                    " characters of A-Z a-z 0-9 . _ -"));
  }
  value = std::string(text);
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<Identity> IdentityOf(const grpc::ServerContextBase& context) {
  Identity identity;
  EM_RETURN_IF_ERROR(Take(context, kTenantKey, identity.tenant));
  EM_RETURN_IF_ERROR(Take(context, kPrincipalKey, identity.principal));
  EM_RETURN_IF_ERROR(Take(context, kRequestIdKey, identity.request_id));
  return identity;
}

absl::Status RequireDeadline(const grpc::ServerContextBase& context) {
  if (context.deadline() != std::chrono::system_clock::time_point::max()) return absl::OkStatus();
  return base::Error(base::Reason::kDeadlineRequired, "set a deadline on this call");
}

std::chrono::microseconds Remaining(const grpc::ServerContextBase& context) {
  const auto deadline = context.deadline();
  if (deadline == std::chrono::system_clock::time_point::max()) return kNoDeadline;
  const auto left = std::chrono::duration_cast<std::chrono::microseconds>(
      deadline - std::chrono::system_clock::now());
  return std::clamp<std::chrono::microseconds>(left, std::chrono::microseconds(0), kNoDeadline);
}

void PrepareClient(grpc::ClientContext& context, const Identity& identity,
                   std::chrono::microseconds budget) {
  context.AddMetadata(kTenantKey, identity.tenant);
  context.AddMetadata(kPrincipalKey, identity.principal);
  if (!identity.request_id.empty()) context.AddMetadata(kRequestIdKey, identity.request_id);
  context.set_deadline(std::chrono::system_clock::now() + budget);
}

}  // namespace expertmesh::rpc

#include "services/rpc/identity.h"

#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "services/base/status.h"

namespace expertmesh::rpc {
namespace {

using Metadata = std::multimap<grpc::string_ref, grpc::string_ref>;

constexpr char kTenantKey[] = "x-expertmesh-tenant";
constexpr char kPrincipalKey[] = "x-expertmesh-principal";
constexpr char kRequestIdKey[] = "x-request-id";
constexpr char kRefused[] = "!";  // legal in gRPC, not in an identity
constexpr std::chrono::microseconds kBudgetMax = std::chrono::hours(24);

absl::Status Take(const Metadata& metadata, const char* key, std::string& value) {
  const auto [first, last] = metadata.equal_range(key);
  if (first == last) return absl::OkStatus();
  const std::string_view text(first->second.data(), first->second.size());
  if (std::next(first) != last || !IsIdentityValue(text)) {
    return base::Error(base::Reason::kBadMetadata,
                       absl::StrCat("send metadata ", key, " once, with 1 to ", kIdentityBytesMax,
                                    " characters of A-Z a-z 0-9 . _ -"));
  }
  value = std::string(text);
  return absl::OkStatus();
}

bool HasDeadline(const grpc::ServerContextBase& context) {
  return context.deadline() != std::chrono::system_clock::time_point::max();
}

}  // namespace

bool IsIdentityValue(std::string_view value) {
  return !value.empty() && value.size() <= kIdentityBytesMax &&
         std::all_of(value.begin(), value.end(), [](unsigned char c) {
           return absl::ascii_isalnum(c) || c == '.' || c == '_' || c == '-';
         });
}

absl::StatusOr<Identity> IdentityFrom(const Metadata& metadata) {
  Identity identity;
  EM_RETURN_IF_ERROR(Take(metadata, kTenantKey, identity.tenant));
  EM_RETURN_IF_ERROR(Take(metadata, kPrincipalKey, identity.principal));
  EM_RETURN_IF_ERROR(Take(metadata, kRequestIdKey, identity.request_id));
  return identity;
}

absl::StatusOr<Identity> IdentityOf(const grpc::ServerContextBase& context) {
  return IdentityFrom(context.client_metadata());
}

absl::Status RequireDeadline(const grpc::ServerContextBase& context) {
  if (HasDeadline(context)) return absl::OkStatus();
  return base::Error(base::Reason::kDeadlineRequired, "set a deadline on this call");
}

std::chrono::microseconds Remaining(const grpc::ServerContextBase& context) {
  if (!HasDeadline(context)) return kBudgetMax;
  const auto left = std::chrono::duration_cast<std::chrono::microseconds>(
      context.deadline() - std::chrono::system_clock::now());
  return std::clamp(left, std::chrono::microseconds(0), kBudgetMax);
}

void PrepareClient(grpc::ClientContext& context, const Identity& identity,
                   std::chrono::microseconds budget) {
  const auto sendable = [](const std::string& value) {
    return IsIdentityValue(value) ? value : std::string(kRefused);
  };
  context.AddMetadata(kTenantKey, sendable(identity.tenant));
  context.AddMetadata(kPrincipalKey, sendable(identity.principal));
  if (!identity.request_id.empty()) {
    context.AddMetadata(kRequestIdKey, sendable(identity.request_id));
  }
  // gRPC rounds deadlines up to milliseconds, in which a call may still succeed; one long past does
  // not.
  context.set_deadline(budget.count() <= 0
                           ? std::chrono::system_clock::time_point()
                           : std::chrono::system_clock::now() + std::min(budget, kBudgetMax));
}

}  // namespace expertmesh::rpc

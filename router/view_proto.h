// Between router.v1 messages and the plain structs of core/.
#pragma once

#include "absl/status/statusor.h"
#include "expertmesh/router/v1/router.pb.h"
#include "router/core/member.h"
#include "router/core/placement.h"

namespace expertmesh::router {

Role FromProto(common::v1::Role role);  // of a checked Hello
common::v1::Role ToProto(Role role);

/// kInvalidArgument naming the field where a Hello cannot be used.
absl::StatusOr<Member> FromHello(const v1::Hello& hello);
Report FromReport(const v1::Report& report);

/// Members, placement and missing experts; incarnation and sequence are the caller's.
v1::View ToView(const Members& members, const Placement& placement, base::Instant now);

}  // namespace expertmesh::router

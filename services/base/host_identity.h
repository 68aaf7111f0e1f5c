// Which host this process runs on, for what two processes of one host may share.
#pragma once

#include <string>

namespace expertmesh::base {

/// Boot id and network namespace; "" where the system does not tell, which never matches.
std::string HostIdentity();

}  // namespace expertmesh::base

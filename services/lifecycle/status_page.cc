#include "services/lifecycle/status_page.h"

#include <unistd.h>

#include "absl/strings/str_cat.h"
#include "boost/json.hpp"
#include "services/telemetry/build_info.h"

namespace expertmesh::lifecycle {
namespace {

namespace json = boost::json;

std::string HexId(uint64_t id) { return absl::StrCat(absl::Hex(id, absl::kZeroPad16)); }

json::object PeerObject(const PeerEntry& peer, absl::Time now) {
  json::object object;
  object["role"] = peer.status.role;
  object["name"] = peer.status.name;
  object["address"] = peer.status.address;
  object["state"] = peer.status.state;
  object["reason"] = peer.status.reason;
  if (!peer.status.transport.empty()) object["transport"] = peer.status.transport;
  object["since"] = absl::FormatTime(absl::RFC3339_sec, peer.since, absl::UTCTimeZone());
  object["since_s"] = absl::ToInt64Seconds(now - peer.since);
  return object;
}

json::value SectionValue(const std::string& text) {
  boost::system::error_code error;
  json::value value = json::parse(text, error);
  if (!error) return value;
  json::object object;
  object["error"] = "not JSON: " + error.message();
  return object;
}

}  // namespace

std::string StatusPage(const StatusSnapshot& snapshot) {
  const telemetry::BuildInfo build = telemetry::GetBuildInfo();
  json::object page;
  page["name"] = snapshot.name;
  page["role"] = snapshot.role;
  page["pid"] = static_cast<int64_t>(getpid());
  page["version"] = json::string(build.version.data(), build.version.size());
  page["commit"] = json::string(build.commit.data(), build.commit.size());
  page["incarnation"] = HexId(snapshot.incarnation);
  page["ready"] = snapshot.not_ready_reason.empty();
  page["reason"] = snapshot.not_ready_reason;
  page["draining"] = snapshot.draining;
  page["started"] = absl::FormatTime(absl::RFC3339_sec, snapshot.started, absl::UTCTimeZone());
  page["uptime_s"] = absl::ToInt64Seconds(snapshot.now - snapshot.started);
  json::array peers;
  for (const PeerEntry& peer : snapshot.peers) peers.push_back(PeerObject(peer, snapshot.now));
  page["peers"] = std::move(peers);
  for (const auto& [key, text] : snapshot.sections) page[key] = SectionValue(text);
  return json::serialize(page) + "\n";
}

std::string AnnounceText(const StatusSnapshot& snapshot, const std::string& grpc_address,
                         const std::string& admin_address,
                         const std::map<std::string, std::string>& extra) {
  json::object object;
  object["name"] = snapshot.name;
  object["role"] = snapshot.role;
  object["pid"] = static_cast<int64_t>(getpid());
  object["incarnation"] = HexId(snapshot.incarnation);
  object["grpc_address"] = grpc_address;
  object["admin_address"] = admin_address;
  for (const auto& [key, value] : extra) object[key] = value;
  return json::serialize(object) + "\n";
}

}  // namespace expertmesh::lifecycle

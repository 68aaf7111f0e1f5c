// Rows of a running Engram store, read and exchanged by a measurement.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "cli/eval/name_exchange.h"
#include "expertmesh/engram/v1/engram.grpc.pb.h"

namespace expertmesh::cli {

/// Errors name the store's address.
class EngramEditor {
 public:
  struct Options {
    std::string store = {};  // "host:port" or "unix:/path"
    std::string model = {};
    std::string revision = {};
    std::string principal = "anonymous";
    uint32_t timeout_s = 60;
  };
  explicit EngramEditor(Options options);

  /// The version that is current.
  absl::StatusOr<std::string> Current();
  /// A draft on the published version `base` in which the rows of every pair have changed places.
  /// `layers` [pairs]: layers of the model.
  absl::StatusOr<std::string> Exchange(const std::string& base, std::span<const uint32_t> layers,
                                       std::span<const RowPairs> pairs);
  absl::Status Publish(const std::string& version);
  absl::Status RollBack(const std::string& version);
  /// Leases on a version now.
  absl::StatusOr<uint32_t> Leases(const std::string& version);

 private:
  using Stub = engram::v1::EngramService::Stub;
  template <class Request, class Response>
  absl::Status Ask(grpc::Status (Stub::*method)(grpc::ClientContext*, const Request&, Response*),
                   Request& request, Response& response);
  /// Reads the rows of `from`, a published version, and puts them into a draft on `base`.
  absl::StatusOr<std::string> ExchangeSome(const std::string& from, const std::string& base,
                                           uint32_t layer,
                                           std::span<const std::pair<uint64_t, uint64_t>> pairs);

  const Options options_;
  const std::unique_ptr<Stub> stub_;
};

}  // namespace expertmesh::cli

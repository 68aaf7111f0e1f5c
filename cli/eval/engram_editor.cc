#include "cli/eval/engram_editor.h"

#include <algorithm>
#include <chrono>
#include <utility>

#include "absl/strings/str_cat.h"
#include "services/base/crc32c.h"
#include "services/base/status.h"
#include "services/rpc/channel.h"
#include "services/rpc/identity.h"
#include "services/rpc/status.h"

namespace expertmesh::cli {
namespace {

namespace pb = engram::v1;
using base::Error;
using base::Reason;

constexpr size_t kRowsOfAnUpdate = 16384;  // engram.v1

uint32_t Checksum(const std::string& bytes) {
  return base::Crc32c(std::as_bytes(std::span(bytes.data(), bytes.size())));
}

}  // namespace

EngramEditor::EngramEditor(Options options)
    : options_(std::move(options)),
      stub_(pb::EngramService::NewStub(rpc::MakeChannel(options_.store))) {}

template <class Request, class Response>
absl::Status EngramEditor::Ask(grpc::Status (Stub::*method)(grpc::ClientContext*, const Request&,
                                                            Response*),
                               Request& request, Response& response) {
  grpc::ClientContext context;
  rpc::Identity identity;
  identity.principal = options_.principal;
  rpc::PrepareClient(context, identity, std::chrono::seconds(options_.timeout_s));
  request.mutable_model()->set_model(options_.model);
  request.mutable_model()->set_revision(options_.revision);
  return base::Annotate(rpc::FromGrpcStatus((stub_.get()->*method)(&context, request, &response)),
                        options_.store + ": ");
}

absl::StatusOr<std::string> EngramEditor::Current() {
  pb::DescribeTablesRequest request;
  pb::DescribeTablesResponse response;
  EM_RETURN_IF_ERROR(Ask(&Stub::DescribeTables, request, response));
  return response.version().version();
}

absl::StatusOr<std::string> EngramEditor::ExchangeSome(
    const std::string& from, const std::string& base, uint32_t layer,
    std::span<const std::pair<uint64_t, uint64_t>> pairs) {
  pb::LookupRowsRequest lookup;
  lookup.set_version(from);
  lookup.set_layer(layer);
  for (const auto& [row, partner] : pairs) lookup.add_row_ids(partner);
  pb::LookupRowsResponse found;
  EM_RETURN_IF_ERROR(Ask(&Stub::LookupRows, lookup, found));
  if (found.rows().size() != pairs.size() * found.row_bytes() ||
      Checksum(found.rows()) != found.rows_crc32c()) {
    return Error(Reason::kEngramChecksum, options_.store + ": rows came back damaged");
  }
  pb::UpdateRowsRequest update;
  update.set_base(base);
  update.set_layer(layer);
  for (const auto& [row, partner] : pairs) update.add_row_ids(row);
  update.set_rows(found.rows());
  update.set_rows_crc32c(found.rows_crc32c());
  pb::UpdateRowsResponse draft;
  EM_RETURN_IF_ERROR(Ask(&Stub::UpdateRows, update, draft));
  return draft.version().version();
}

absl::StatusOr<std::string> EngramEditor::Exchange(const std::string& base,
                                                   std::span<const uint32_t> layers,
                                                   std::span<const RowPairs> pairs) {
  std::string version = base;
  for (size_t place = 0; place < pairs.size(); ++place) {
    // Both halves of a pair go into one update: a draft between would hold a row twice.
    std::vector<std::pair<uint64_t, uint64_t>> rows;
    for (const auto& [row, partner] : pairs[place]) {
      if (row > partner) continue;
      rows.emplace_back(row, partner);
      rows.emplace_back(partner, row);
    }
    for (size_t at = 0; at < rows.size(); at += kRowsOfAnUpdate) {
      const size_t count = std::min(kRowsOfAnUpdate, rows.size() - at);
      EM_ASSIGN_OR_RETURN(
          version, ExchangeSome(base, version, layers[place], std::span(rows).subspan(at, count)));
    }
  }
  return version;
}

absl::Status EngramEditor::Publish(const std::string& version) {
  pb::PublishRequest request;
  request.set_version(version);
  pb::PublishResponse response;
  return Ask(&Stub::Publish, request, response);
}

absl::Status EngramEditor::RollBack(const std::string& version) {
  pb::RollbackRequest request;
  request.set_version(version);
  pb::RollbackResponse response;
  return Ask(&Stub::Rollback, request, response);
}

absl::StatusOr<uint32_t> EngramEditor::Leases(const std::string& version) {
  pb::ListVersionsRequest request;
  pb::ListVersionsResponse response;
  EM_RETURN_IF_ERROR(Ask(&Stub::ListVersions, request, response));
  for (const pb::EngramVersion& v : response.versions()) {
    if (v.version() == version) return v.leases();
  }
  return 0u;
}

}  // namespace expertmesh::cli

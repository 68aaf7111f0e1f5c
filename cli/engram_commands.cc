#include "cli/engram_commands.h"

#include <fstream>
#include <iostream>
#include <sstream>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/time/time.h"
#include "expertmesh/engram/v1/engram.grpc.pb.h"
#include "model/formats/table_row.h"
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
using Stub = pb::EngramService::Stub;

constexpr int kRowsOfAnUpdate = 16384;

class Store {
 public:
  explicit Store(const StoreOptions& options)
      : options_(options), stub_(pb::EngramService::NewStub(rpc::MakeChannel(options.store))) {}

  template <class Request, class Response>
  absl::Status Ask(grpc::Status (Stub::*method)(grpc::ClientContext*, const Request&, Response*),
                   const Request& request, Response& response) {
    grpc::ClientContext context;
    rpc::Identity identity;
    identity.principal = options_.principal;
    rpc::PrepareClient(context, identity, std::chrono::seconds(options_.timeout_s));
    const absl::Status status =
        rpc::FromGrpcStatus((stub_.get()->*method)(&context, request, &response));
    return base::Annotate(status, options_.store + ": ");
  }

  absl::StatusOr<pb::ListVersionsResponse> Versions(bool drafts) {
    pb::ListVersionsRequest request;
    request.mutable_model()->set_model(options_.model);
    request.set_drafts(drafts);
    pb::ListVersionsResponse response;
    EM_RETURN_IF_ERROR(Ask(&Stub::ListVersions, request, response));
    return response;
  }

  /// The model of --model, or the only one.
  absl::StatusOr<common::v1::ModelRef> Model() {
    EM_ASSIGN_OR_RETURN(const pb::ListVersionsResponse versions, Versions(true));
    common::v1::ModelRef model;
    for (const pb::EngramVersion& v : versions.versions()) {
      if (model.model().empty()) model = v.model();
      if (model.model() != v.model().model() || model.revision() != v.model().revision()) {
        // The newest stands first; with --model it is the one that is meant.
        if (!options_.model.empty()) break;
        return Error(Reason::kInvalidArgument, "the store has several models; name one: --model");
      }
    }
    if (!model.model().empty()) return model;
    return Error(Reason::kModelHasNoMemory, options_.store + ": no such tables");
  }

  /// The whole name of a version that begins so.
  absl::StatusOr<std::string> Whole(const std::string& beginning) {
    if (beginning.empty()) return beginning;
    EM_ASSIGN_OR_RETURN(const pb::ListVersionsResponse versions, Versions(true));
    std::string whole;
    for (const pb::EngramVersion& v : versions.versions()) {
      if (!absl::StartsWith(v.version(), beginning) || v.version() == whole) continue;
      if (!whole.empty()) {
        return Error(Reason::kInvalidArgument,
                     absl::StrCat("several versions begin with ", beginning));
      }
      whole = v.version();
    }
    return whole.empty() ? beginning : whole;
  }

 private:
  const StoreOptions& options_;
  const std::unique_ptr<Stub> stub_;
};

std::string TimeText(int64_t unix_ms) {
  return absl::FormatTime("%Y-%m-%d %H:%M:%S", absl::FromUnixMillis(unix_ms), absl::UTCTimeZone());
}

void PrintCurrent(const pb::EngramVersion& version, const Output& output) {
  output.out << version.version() << "\n";
  output.err << "current for " << version.model().model() << ", publish number "
             << version.publish_number() << "\n";
}

model::MatrixFormat FormatOf(pb::RowFormat format) {
  if (format == pb::ROW_FORMAT_F32) return model::kPlainF32;
  return format == pb::ROW_FORMAT_BF16 ? model::kPlainBf16 : model::kFp8TableRows;
}

// One line of the input: a row id and its values.
absl::Status ParseLine(const std::string& line, size_t number, size_t width, uint64_t& row,
                       std::vector<float>& values) {
  const std::vector<absl::string_view> words =
      absl::StrSplit(line, absl::ByAnyChar(" \t\r"), absl::SkipEmpty());
  const auto bad = [&](const std::string& why) {
    return Error(Reason::kInvalidArgument, absl::StrCat("line ", number, ": ", why));
  };
  if (words.size() != width + 1) {
    return bad(
        absl::StrCat("expected a row id and ", width, " values, found ", words.size(), " words"));
  }
  if (!absl::SimpleAtoi(words[0], &row)) return bad("the row id is not a whole number");
  values.resize(width);
  for (size_t i = 0; i < width; ++i) {
    if (!absl::SimpleAtof(words[i + 1], &values[i])) {
      return bad(absl::StrCat("value ", i, " is not a number"));
    }
  }
  return absl::OkStatus();
}

absl::Status ReadUpdates(std::istream& in, const pb::TableShape& shape,
                         const pb::UpdateRowsRequest& first,
                         std::vector<pb::UpdateRowsRequest>& updates) {
  const model::TableRowCodec codec(FormatOf(shape.format()), shape.width());
  std::string line;
  std::vector<float> values;
  for (size_t number = 1; std::getline(in, line); ++number) {
    if (line.find_first_not_of(" \t\r") == std::string::npos || line[0] == '#') continue;
    uint64_t row = 0;
    EM_RETURN_IF_ERROR(ParseLine(line, number, shape.width(), row, values));
    if (updates.empty() || updates.back().row_ids_size() == kRowsOfAnUpdate) {
      updates.push_back(first);
    }
    std::string bytes(codec.row_bytes(), '\0');
    const absl::Status encoded =
        codec.Encode(values.data(), std::as_writable_bytes(std::span(bytes.data(), bytes.size())));
    if (!encoded.ok()) return base::Annotate(encoded, absl::StrCat("line ", number, ": "));
    updates.back().add_row_ids(row);
    updates.back().mutable_rows()->append(bytes);
  }
  if (updates.empty()) return Error(Reason::kInvalidArgument, "the input has no rows");
  return absl::OkStatus();
}

}  // namespace

absl::Status ListEngramVersions(const StoreOptions& options, const EngramListOptions& list,
                                const Output& output) {
  Store store(options);
  EM_ASSIGN_OR_RETURN(const pb::ListVersionsResponse versions, store.Versions(list.drafts));
  if (versions.versions_size() == 0) output.err << "no versions\n";
  std::string model;
  for (const pb::EngramVersion& v : versions.versions()) {
    const std::string of = absl::StrCat(v.model().model(), "/", v.model().revision());
    const bool current = v.publish_number() != 0 && of != model;
    if (current) model = of;
    output.out << v.version() << "  " << TimeText(v.created_unix_ms()) << "  " << v.model().model()
               << " " << v.model().revision().substr(0, 12) << "  " << v.rows() << " rows  "
               << (v.publish_number() == 0 ? "draft"
                   : current               ? "current"
                                           : "published")
               << "  leases " << v.leases();
    if (!v.base().empty()) output.out << "  on " << v.base().substr(0, 12);
    output.out << "\n";
  }
  return absl::OkStatus();
}

absl::Status UpdateEngramRows(const StoreOptions& options, const EngramUpdateOptions& update,
                              const Output& output) {
  Store store(options);
  pb::DescribeTablesRequest question;
  EM_ASSIGN_OR_RETURN(*question.mutable_model(), store.Model());
  EM_ASSIGN_OR_RETURN(*question.mutable_version(), store.Whole(update.base));
  pb::DescribeTablesResponse tables;
  EM_RETURN_IF_ERROR(store.Ask(&Stub::DescribeTables, question, tables));
  pb::UpdateRowsRequest first;
  *first.mutable_model() = question.model();
  first.set_layer(update.layer);
  std::vector<pb::UpdateRowsRequest> updates;
  std::ifstream file;
  if (update.input != "-") {
    file.open(update.input);
    if (!file) return Error(Reason::kInvalidArgument, update.input + " cannot be read");
  }
  EM_RETURN_IF_ERROR(
      ReadUpdates(update.input == "-" ? std::cin : file, tables.shape(), first, updates));
  std::string version = tables.version().version();
  size_t rows = 0;
  for (pb::UpdateRowsRequest& request : updates) {
    request.set_base(version);
    request.set_rows_crc32c(
        base::Crc32c(std::as_bytes(std::span(request.rows().data(), request.rows().size()))));
    pb::UpdateRowsResponse response;
    EM_RETURN_IF_ERROR(store.Ask(&Stub::UpdateRows, request, response));
    version = response.version().version();
    rows += static_cast<size_t>(request.row_ids_size());
  }
  output.err << rows << " rows of layer " << update.layer << " changed in a draft\n";
  if (update.publish) return PublishEngramVersion(options, {version}, output);
  output.out << version << "\n";
  return absl::OkStatus();
}

absl::Status PublishEngramVersion(const StoreOptions& options, const EngramVersionOptions& publish,
                                  const Output& output) {
  Store store(options);
  pb::PublishRequest request;
  EM_ASSIGN_OR_RETURN(*request.mutable_model(), store.Model());
  EM_ASSIGN_OR_RETURN(*request.mutable_version(), store.Whole(publish.version));
  pb::PublishResponse response;
  EM_RETURN_IF_ERROR(store.Ask(&Stub::Publish, request, response));
  PrintCurrent(response.version(), output);
  return absl::OkStatus();
}

absl::Status RollBackEngram(const StoreOptions& options, const EngramVersionOptions& back,
                            const Output& output) {
  Store store(options);
  pb::RollbackRequest request;
  EM_ASSIGN_OR_RETURN(*request.mutable_model(), store.Model());
  EM_ASSIGN_OR_RETURN(*request.mutable_version(), store.Whole(back.version));
  pb::RollbackResponse response;
  EM_RETURN_IF_ERROR(store.Ask(&Stub::Rollback, request, response));
  PrintCurrent(response.version(), output);
  return absl::OkStatus();
}

absl::Status PruneEngramVersions(const StoreOptions& options, const EngramPruneOptions& prune,
                                 const Output& output) {
  Store store(options);
  pb::PruneRequest request;
  request.mutable_model()->set_model(options.model);
  request.set_keep(prune.keep);
  request.set_drafts(prune.drafts);
  request.set_force(prune.force);
  pb::PruneResponse response;
  EM_RETURN_IF_ERROR(store.Ask(&Stub::Prune, request, response));
  for (const std::string& version : response.versions()) output.out << version << "\n";
  output.err << response.versions_size() << " versions removed\n";
  return absl::OkStatus();
}

absl::Status ShowEngramAudit(const StoreOptions& options, const EngramAuditOptions& audit,
                             const Output& output) {
  Store store(options);
  pb::ListAuditRequest request;
  request.set_limit(audit.limit);
  pb::ListAuditResponse response;
  EM_RETURN_IF_ERROR(store.Ask(&Stub::ListAudit, request, response));
  for (const pb::AuditEntry& entry : response.entries()) {
    output.out << TimeText(entry.unix_ms()) << "  " << entry.tenant() << "/" << entry.principal()
               << "  " << entry.action() << (entry.done() ? "  done" : "  refused") << "  "
               << entry.model().model() << "  " << entry.version().substr(0, 12) << "  "
               << entry.detail() << "\n";
  }
  return absl::OkStatus();
}

}  // namespace expertmesh::cli

// Requests of engram.v1 and entries of the record: any bytes are an error or within their bounds.
#include <string>

#include "engram-store/core/lookup_limits.h"
#include "engram-store/rocksdb/db_keys.h"
#include "expertmesh/engram/v1/engram.pb.h"
#include "google/protobuf/stubs/logging.h"
#include "tests/fuzz/fuzz.h"

namespace expertmesh::fuzz {
namespace {

namespace pb = engram::v1;

void CheckRequests(const uint8_t* data, int size) {
  pb::LookupBatchRequest batch;
  if (batch.ParseFromArray(data, size)) {
    size_t rows = 0;
    for (const pb::RowSet& set : batch.sets()) rows += static_cast<size_t>(set.row_ids_size());
    Require(engram_store::CheckRowLookup(rows).ok() == (rows <= engram_store::kLookupMax),
            "a bound of rows");
  }
  pb::LookupTokensRequest tokens;
  if (tokens.ParseFromArray(data, size)) {
    const auto count = static_cast<size_t>(tokens.token_ids_size());
    if (engram_store::CheckTokenLookup(count, tokens.skip()).ok()) {
      Require(tokens.skip() <= count, "a skip inside the tokens");
    }
  }
}

void CheckEntry(const uint8_t* data, size_t size) {
  pb::VersionEntry entry;
  if (!entry.ParseFromArray(data, static_cast<int>(size))) return;
  const std::string key = entry.version().model().model() + '\0' +
                          entry.version().model().revision() + '\0' + entry.version().version();
  engram_store::VersionRecord version;
  if (!engram_store::ParseEntry(key, Text(data, size), version)) return;
  Require(version.shape.Check().ok(), "a checked shape");
  Require(!version.changes.empty() && version.changes.back() == version.root, "a chain");
  engram_store::VersionRecord again;
  Require(engram_store::ParseEntry(key, engram_store::EntryOf(version), again) && again == version,
          "an entry that is written as it was read");
}

}  // namespace
}  // namespace expertmesh::fuzz

extern "C" int LLVMFuzzerInitialize(int*, char***) {
  google::protobuf::SetLogHandler(nullptr);  // it would print a line per bad string
  return 0;
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  expertmesh::fuzz::CheckRequests(data, static_cast<int>(size));
  expertmesh::fuzz::CheckEntry(data, size);
  return 0;
}

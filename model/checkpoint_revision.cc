#include "model/checkpoint_revision.h"

#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <boost/json/array.hpp>
#include <boost/json/object.hpp>
#include <boost/json/serialize.hpp>
#include <cstdio>
#include <fstream>
#include <set>
#include <thread>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "model/config_json.h"
#include "services/base/crc32c.h"
#include "services/base/hash.h"
#include "services/base/thread_pool.h"

namespace expertmesh::model {
namespace {

namespace json = boost::json;

constexpr size_t kConfigBytesMax = 1 << 20;
constexpr size_t kCacheBytesMax = 1 << 20;
constexpr size_t kReleaseBytes = size_t{8} << 20;  // checksummed bytes that may stay resident

std::string HexOf(base::Sha256& hash) { return base::Hex(hash.Finish()); }

void AddPart(base::Sha256& hash, std::string_view text) {
  hash.Update(absl::StrCat(text.size(), ":"));
  hash.Update(text);
}

// In pieces, each released after use: a checksum must not fill the memory of every worker.
uint32_t ChecksumOf(const Checkpoint& checkpoint, const TensorView& tensor) {
  uint32_t crc = 0;
  for (size_t at = 0; at < tensor.bytes.size(); at += kReleaseBytes) {
    TensorView piece;
    piece.bytes = tensor.bytes.subspan(at, std::min(kReleaseBytes, tensor.bytes.size() - at));
    crc = base::Crc32c(piece.bytes, crc);
    checkpoint.Release(piece);
  }
  return crc;
}

std::string DigestOfWeights(const Checkpoint& checkpoint) {
  std::vector<const TensorView*> tensors;
  for (const auto& [name, tensor] : checkpoint.tensors()) {
    if (!IsMemoryTable(name)) tensors.push_back(&tensor);
  }
  std::vector<uint32_t> checksums(tensors.size());
  const int cores = static_cast<int>(std::thread::hardware_concurrency());
  base::ThreadPool pool(std::clamp(cores, 1, kRevisionThreadsMax));
  pool.ParallelFor(tensors.size(), 1, [&](size_t begin, size_t end, int) {
    for (size_t i = begin; i < end; ++i) checksums[i] = ChecksumOf(checkpoint, *tensors[i]);
  });
  base::Sha256 hash;
  for (size_t i = 0; i < tensors.size(); ++i) {
    AddPart(hash, tensors[i]->name);
    AddPart(hash, absl::StrCat(std::string(TensorTypeName(tensors[i]->type)), "[",
                               absl::StrJoin(tensors[i]->shape, ","), "]", checksums[i]));
  }
  return HexOf(hash);
}

// The exact text of the cache for these files; what is read is valid only if it equals this.
std::string CacheText(const Checkpoint& checkpoint, const std::vector<ShardFile>& shards,
                      const std::string& weights) {
  std::set<std::string> counted;  // paths of files with tensors that are part of the revision
  for (const auto& [name, tensor] : checkpoint.tensors()) {
    if (!IsMemoryTable(name)) counted.insert(tensor.file);
  }
  json::array files;
  for (const ShardFile& shard : shards) {
    if (!counted.contains(JoinPath(checkpoint.directory(), shard.name))) continue;
    files.push_back(json::object{{"name", json::string_view(shard.name.data(), shard.name.size())},
                                 {"bytes", shard.mapped->stamp().bytes},
                                 {"modified_ns", shard.mapped->stamp().modified_ns}});
  }
  json::object cache{{"format", 1}, {"files", std::move(files)}, {"weights", weights}};
  base::Sha256 check;
  check.Update(json::serialize(cache));
  cache["check"] = HexOf(check);
  return json::serialize(cache) + "\n";
}

// The digest in the cache; empty if there is no cache, or it is stale or broken.
std::string ReadCache(const Checkpoint& checkpoint, const std::string& path,
                      const std::vector<ShardFile>& shards) {
  constexpr auto kReason = base::Reason::kBadCheckpoint;
  const absl::StatusOr<std::string> text = ReadSmallFile(path, kCacheBytesMax, kReason);
  if (!text.ok()) return "";
  const absl::StatusOr<json::value> root = ParseJson(*text, kReason);
  if (!root.ok() || !root->is_object()) return "";
  const json::value* weights = root->get_object().if_contains("weights");
  if (!weights || !weights->is_string()) return "";
  std::string digest(weights->get_string().data(), weights->get_string().size());
  return CacheText(checkpoint, shards, digest) == *text ? digest : "";
}

// A cache that cannot be written costs time at the next start, nothing else.
void WriteCache(const std::string& path, const std::string& text) {
  static std::atomic<int> writers{0};  // two threads may open the same model
  const std::string temporary = absl::StrCat(path, ".", getpid(), ".", writers++, ".tmp");
  std::ofstream file(temporary, std::ios::binary | std::ios::trunc);
  if (!file) return;
  file << text;
  file.close();
  if (!file || std::rename(temporary.c_str(), path.c_str()) != 0) std::remove(temporary.c_str());
}

}  // namespace

absl::StatusOr<std::string> ComputeRevision(const Checkpoint& checkpoint,
                                            const std::vector<ShardFile>& shards,
                                            std::string_view options) {
  EM_ASSIGN_OR_RETURN(const std::string config,
                      ReadSmallFile(JoinPath(checkpoint.directory(), "config.json"),
                                    kConfigBytesMax, base::Reason::kBadConfig));
  const std::string cache_path = JoinPath(checkpoint.directory(), kRevisionFile);
  std::string weights = ReadCache(checkpoint, cache_path, shards);
  if (weights.empty()) {
    weights = DigestOfWeights(checkpoint);
    WriteCache(cache_path, CacheText(checkpoint, shards, weights));
  }
  base::Sha256 hash;
  AddPart(hash, "expertmesh revision 1");
  AddPart(hash, config);
  AddPart(hash, weights);
  AddPart(hash, options);
  return HexOf(hash);
}

}  // namespace expertmesh::model

// The live Engram stores of this worker's model and the channels to them; leases on the versions
// that its lanes read (docs/engram-store.md §4).
#pragma once

#include <condition_variable>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "attention-worker/engram_segments.h"
#include "expertmesh/engram/v1/engram.grpc.pb.h"

namespace expertmesh::attention_worker {

struct EngramStoreAddress {
  std::string name;
  uint64_t incarnation = 0;
  std::string address;
  friend bool operator==(const EngramStoreAddress&, const EngramStoreAddress&) = default;
};

/// A version of the tables that some lane reads. While it lives, a lease on it is kept.
struct MemoryPin {
  ~MemoryPin();
  std::string version;
  engram::v1::TableShape shape;
  std::shared_ptr<const MappedTables> mapped;  // null: rows are asked for
  std::function<void()> release;
};

/// Thread-safe. Owns a thread that renews leases.
class EngramStores {
 public:
  using Stub = engram::v1::EngramService::Stub;
  struct Store {
    EngramStoreAddress at;
    std::shared_ptr<Stub> stub;
  };
  struct Options {
    std::string model;
    std::string revision;
    std::string worker;  // holder of the leases
    std::chrono::milliseconds call_timeout = std::chrono::seconds(5);
    std::chrono::milliseconds lease_time = std::chrono::seconds(30);
    bool map_segments = true;  // of stores on this host
  };
  explicit EngramStores(Options options);
  ~EngramStores();
  /// Waits for a `done` that runs; every later one gets kDraining. Idempotent.
  void Stop();

  /// The stores that are alive, in the order in which to ask them.
  void SetStores(const std::vector<EngramStoreAddress>& stores);
  std::vector<std::shared_ptr<const Store>> stores() const;
  /// Rises with every change of the stores.
  uint64_t generation() const;
  /// Until the generation is another than that, or the time is over.
  void WaitForChange(uint64_t generation, std::chrono::milliseconds timeout) const;

  /// A lease on a version ("" = the current one) of the first store that has it. `done` runs on
  /// another thread, or in the caller if there is no store: kEngramUnavailable, or the reason that
  /// the last store gave.
  using Pinned = std::function<void(absl::StatusOr<std::shared_ptr<const MemoryPin>>)>;
  void Pin(const std::string& version, Pinned done);

  /// Versions whose tables are mapped now.
  std::vector<std::string> mapped_versions() const;

  const Options& options() const { return options_; }

 private:
  struct PinCall;
  struct Lease {
    std::string version;
    std::string store;
    uint64_t incarnation = 0;
    uint64_t number = 0;
  };
  struct Alive;
  struct Mapping {
    std::shared_ptr<const MappedTables> tables;
    bool idle = false;  // no pin had it when the leases were renewed last
  };
  void Try(std::shared_ptr<PinCall> call);
  static void Answered(const std::shared_ptr<PinCall>& call, const std::shared_ptr<Alive>& alive,
                       const grpc::Status& status);
  std::shared_ptr<const MemoryPin> Take(const Store& store,
                                        const engram::v1::AcquireLeaseResponse& lease);
  std::shared_ptr<const MappedTables> MappedOf(const Store& store,
                                               const engram::v1::AcquireLeaseResponse& lease);
  void DropIdleMappings();
  void Release(uint64_t pin);
  void RenewLoop();
  void RenewAll();
  void Renew(const Store& store, const std::map<uint64_t, Lease>& leases);
  void AcquireAgain(uint64_t pin, const std::string& version);

  const Options options_;
  // Callbacks of gRPC may come after this is gone; they look here first.
  const std::shared_ptr<Alive> alive_;

  mutable std::mutex mutex_;
  mutable std::condition_variable changed_;
  std::vector<std::shared_ptr<const Store>> stores_;  // guarded by mutex_
  uint64_t generation_ = 0;                           // guarded by mutex_
  std::map<uint64_t, Lease> leases_;                  // guarded by mutex_; by pin
  uint64_t next_pin_ = 1;                             // guarded by mutex_
  std::map<std::string, Mapping> mappings_;           // guarded by mutex_; by version
  // Guarded by mutex_: incarnations and versions whose files could not be mapped.
  std::set<std::pair<uint64_t, std::string>> refused_;
  bool stop_ = false;  // guarded by mutex_
  std::thread renewer_;
};

}  // namespace expertmesh::attention_worker

#include "attention-worker/engram_stores.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <iterator>
#include <utility>

#include "absl/strings/str_cat.h"
#include "services/base/host_identity.h"
#include "services/base/status.h"
#include "services/rpc/channel.h"
#include "services/rpc/identity.h"
#include "services/rpc/status.h"

namespace expertmesh::attention_worker {

using base::Error;
using base::Reason;
namespace pb = engram::v1;

/// Whether the object that a callback belongs to is still there.
struct EngramStores::Alive {
  std::mutex mutex;
  std::condition_variable idle;
  EngramStores* owner = nullptr;  // guarded by mutex
  int running = 0;                // guarded by mutex; calls of `done`
};

/// One Pin on its way through the stores.
struct EngramStores::PinCall {
  std::string version;
  Pinned done;
  std::vector<std::shared_ptr<const Store>> left;  // still to be asked, next one last
  std::shared_ptr<const Store> asked;
  std::vector<std::unique_ptr<grpc::ClientContext>> contexts;  // one for each store asked
  pb::AcquireLeaseRequest request;
  pb::AcquireLeaseResponse response;
  absl::Status last = Error(Reason::kEngramUnavailable, "no live Engram store has this model");
};

namespace {

absl::Status Refusal(const EngramStores::Store& store, const grpc::Status& status) {
  absl::Status why = rpc::FromGrpcStatus(status);
  const Reason reason = base::ReasonOf(why);
  if (reason != Reason::kPeerLost && reason != Reason::kDeadlineExceeded) return why;
  return Error(Reason::kEngramUnavailable,
               absl::StrCat("Engram store ", store.at.name, ": ", why.message()));
}

}  // namespace

MemoryPin::~MemoryPin() {
  if (release) release();
}

EngramStores::EngramStores(Options options)
    : options_(std::move(options)), alive_(std::make_shared<Alive>()) {
  alive_->owner = this;
  renewer_ = std::thread([this] { RenewLoop(); });
}

EngramStores::~EngramStores() { Stop(); }

void EngramStores::Stop() {
  {
    std::unique_lock lock(alive_->mutex);
    alive_->owner = nullptr;
    alive_->idle.wait(lock, [&] { return alive_->running == 0; });
  }
  {
    std::lock_guard lock(mutex_);
    stop_ = true;
  }
  changed_.notify_all();
  if (renewer_.joinable()) renewer_.join();
}

void EngramStores::SetStores(const std::vector<EngramStoreAddress>& stores) {
  std::lock_guard lock(mutex_);
  std::vector<std::shared_ptr<const Store>> next;
  for (const EngramStoreAddress& at : stores) {
    const auto same = std::find_if(stores_.begin(), stores_.end(),
                                   [&](const auto& store) { return store->at == at; });
    if (same != stores_.end()) {
      next.push_back(*same);
      continue;
    }
    auto store = std::make_shared<Store>();
    store->at = at;
    store->stub = pb::EngramService::NewStub(rpc::MakeChannel(at.address));
    next.push_back(std::move(store));
  }
  if (next == stores_) return;
  stores_ = std::move(next);
  std::erase_if(refused_, [&](const auto& refused) {
    return std::none_of(stores_.begin(), stores_.end(),
                        [&](const auto& store) { return store->at.incarnation == refused.first; });
  });
  ++generation_;
  changed_.notify_all();
}

std::vector<std::shared_ptr<const EngramStores::Store>> EngramStores::stores() const {
  std::lock_guard lock(mutex_);
  return stores_;
}

uint64_t EngramStores::generation() const {
  std::lock_guard lock(mutex_);
  return generation_;
}

void EngramStores::WaitForChange(uint64_t generation, std::chrono::milliseconds timeout) const {
  std::unique_lock lock(mutex_);
  changed_.wait_for(lock, timeout, [&] { return stop_ || generation_ != generation; });
}

void EngramStores::Pin(const std::string& version, Pinned done) {
  auto call = std::make_shared<PinCall>();
  call->version = version;
  call->done = std::move(done);
  call->left = stores();
  std::reverse(call->left.begin(), call->left.end());
  Try(std::move(call));
}

void EngramStores::Try(std::shared_ptr<PinCall> call) {
  if (call->left.empty()) return call->done(call->last);
  call->asked = call->left.back();
  call->left.pop_back();
  call->contexts.push_back(std::make_unique<grpc::ClientContext>());
  rpc::PrepareClient(*call->contexts.back(), {}, options_.call_timeout);
  call->request.mutable_model()->set_model(options_.model);
  call->request.mutable_model()->set_revision(options_.revision);
  call->request.set_version(call->version);
  call->request.set_holder(options_.worker.substr(0, rpc::kIdentityBytesMax));
  call->request.set_ttl_ms(static_cast<uint32_t>(options_.lease_time.count()));
  if (options_.map_segments) call->request.set_host(base::HostIdentity());
  const std::shared_ptr<Stub> stub = call->asked->stub;
  stub->async()->AcquireLease(
      call->contexts.back().get(), &call->request, &call->response,
      [call, alive = alive_](const grpc::Status& status) { Answered(call, alive, status); });
}

void EngramStores::Answered(const std::shared_ptr<PinCall>& call,
                            const std::shared_ptr<Alive>& alive, const grpc::Status& status) {
  std::shared_ptr<const MemoryPin> pin;
  bool again = false;
  {
    std::lock_guard lock(alive->mutex);
    ++alive->running;
    if (alive->owner == nullptr) {
      call->last = Error(Reason::kDraining, "the worker is stopping");
    } else if (status.ok()) {
      pin = alive->owner->Take(*call->asked, call->response);
    } else {
      call->last = Refusal(*call->asked, status);
      again = !call->left.empty();
      if (again) alive->owner->Try(call);
    }
  }
  // Without the lock: a lane that cannot begin lets go of its pin at once.
  if (pin) {
    call->done(std::move(pin));
  } else if (!again) {
    call->done(call->last);
  }
  std::lock_guard lock(alive->mutex);
  --alive->running;
  alive->idle.notify_all();
}

std::shared_ptr<const MemoryPin> EngramStores::Take(const Store& store,
                                                    const pb::AcquireLeaseResponse& lease) {
  auto pin = std::make_shared<MemoryPin>();
  pin->version = lease.version();
  pin->shape = lease.shape();
  pin->mapped = MappedOf(store, lease);
  uint64_t number = 0;
  {
    std::lock_guard lock(mutex_);
    number = next_pin_++;
    leases_[number] = {lease.version(), store.at.name, store.at.incarnation, lease.lease()};
  }
  pin->release = [alive = alive_, number] {
    std::lock_guard lock(alive->mutex);
    if (alive->owner != nullptr) alive->owner->Release(number);
  };
  return pin;
}

// One mapping for all pins of a version: its content is the same in every store.
std::shared_ptr<const MappedTables> EngramStores::MappedOf(const Store& store,
                                                           const pb::AcquireLeaseResponse& lease) {
  if (!options_.map_segments || lease.segments().empty()) return nullptr;
  {
    std::lock_guard lock(mutex_);
    const auto it = mappings_.find(lease.version());
    if (it != mappings_.end()) return it->second.tables;
    if (refused_.contains({store.at.incarnation, lease.version()})) return nullptr;
  }
  const std::string version = lease.version().substr(0, 12);
  auto tables = MappedTables::Open(lease);
  std::lock_guard lock(mutex_);
  if (!tables.ok()) {
    spdlog::info("version {} is read over gRPC, not from the files of Engram store {}: {}", version,
                 store.at.name, std::string(tables.status().message()));
    refused_.emplace(store.at.incarnation, lease.version());
    return nullptr;
  }
  spdlog::info("version {} is read from the files of Engram store {}", version, store.at.name);
  return mappings_.try_emplace(lease.version(), Mapping{*std::move(tables)}).first->second.tables;
}

// A lane that follows soon finds the pages in place, and a pruned version's disk space comes back.
void EngramStores::DropIdleMappings() {
  std::vector<std::shared_ptr<const MappedTables>> dropped;  // unmapped without the lock
  std::lock_guard lock(mutex_);
  for (auto it = mappings_.begin(); it != mappings_.end();) {
    Mapping& mapping = it->second;
    const bool used = mapping.tables.use_count() > 1;
    const bool drop = !used && mapping.idle;
    mapping.idle = !used;
    if (drop) dropped.push_back(std::move(mapping.tables));
    it = drop ? mappings_.erase(it) : std::next(it);
  }
}

std::vector<std::string> EngramStores::mapped_versions() const {
  std::lock_guard lock(mutex_);
  std::vector<std::string> versions;
  for (const auto& [version, mapping] : mappings_) versions.push_back(version);
  return versions;
}

void EngramStores::Release(uint64_t pin) {
  struct Call {
    grpc::ClientContext context;
    pb::ReleaseLeasesRequest request;
    pb::ReleaseLeasesResponse response;
  };
  std::shared_ptr<const Store> holder;
  const auto call = std::make_shared<Call>();
  {
    std::lock_guard lock(mutex_);
    const auto it = leases_.find(pin);
    if (it == leases_.end()) return;
    for (const auto& store : stores_) {
      if (store->at.incarnation == it->second.incarnation) holder = store;
    }
    call->request.add_leases(it->second.number);
    leases_.erase(it);
  }
  if (!holder) return;
  rpc::PrepareClient(call->context, {}, options_.call_timeout);
  holder->stub->async()->ReleaseLeases(&call->context, &call->request, &call->response,
                                       [call, holder](const grpc::Status&) {});
}

void EngramStores::RenewLoop() {
  std::unique_lock lock(mutex_);
  while (!changed_.wait_for(lock, options_.lease_time / 3, [&] { return stop_; })) {
    lock.unlock();
    RenewAll();
    DropIdleMappings();
    lock.lock();
  }
}

void EngramStores::RenewAll() {
  std::map<uint64_t, Lease> leases;
  std::vector<std::shared_ptr<const Store>> stores;
  {
    std::lock_guard lock(mutex_);
    leases = leases_;
    stores = stores_;
  }
  for (const auto& store : stores) {
    std::map<uint64_t, Lease> theirs;
    for (const auto& [pin, lease] : leases) {
      if (lease.incarnation == store->at.incarnation) theirs[pin] = lease;
    }
    for (const auto& [pin, lease] : theirs) leases.erase(pin);
    if (!theirs.empty()) Renew(*store, theirs);
  }
  for (const auto& [pin, lease] : leases) AcquireAgain(pin, lease.version);  // its store is gone
}

void EngramStores::Renew(const Store& store, const std::map<uint64_t, Lease>& leases) {
  grpc::ClientContext context;
  rpc::PrepareClient(context, {}, options_.call_timeout);
  pb::RenewLeasesRequest request;
  pb::RenewLeasesResponse response;
  for (const auto& [pin, lease] : leases) request.add_leases(lease.number);
  const grpc::Status status = store.stub->RenewLeases(&context, request, &response);
  if (!status.ok()) return;  // once more in a third of the lease's time
  const std::set<uint64_t> unknown(response.unknown().begin(), response.unknown().end());
  for (const auto& [pin, lease] : leases) {
    if (unknown.contains(lease.number)) AcquireAgain(pin, lease.version);
  }
}

void EngramStores::AcquireAgain(uint64_t pin, const std::string& version) {
  for (const auto& store : stores()) {
    grpc::ClientContext context;
    rpc::PrepareClient(context, {}, options_.call_timeout);
    pb::AcquireLeaseRequest request;
    request.mutable_model()->set_model(options_.model);
    request.mutable_model()->set_revision(options_.revision);
    request.set_version(version);
    request.set_holder(options_.worker.substr(0, rpc::kIdentityBytesMax));
    request.set_ttl_ms(static_cast<uint32_t>(options_.lease_time.count()));
    pb::AcquireLeaseResponse response;
    if (!store->stub->AcquireLease(&context, request, &response).ok()) continue;
    std::lock_guard lock(mutex_);
    const auto it = leases_.find(pin);
    if (it == leases_.end()) return;  // released meanwhile: this one ends by itself
    it->second = {version, store->at.name, store->at.incarnation, response.lease()};
    return;
  }
  spdlog::warn("no Engram store keeps version {} for the lanes that read it",
               version.substr(0, 12));
}

}  // namespace expertmesh::attention_worker

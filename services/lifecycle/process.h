// What every process of the mesh does beside its own work: stop signals and drain, readiness, the
// state of its peers, and the plain admin port with /livez /readyz /statusz /metrics
// (docs/architecture.md §10). Safe as PID 1. SIGPIPE is ignored.
//
// A main reads: parse flags → Process::Start → build the services → Announce → SetReady →
// WaitForShutdown → stop the servers, newest first.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "services/base/thread_pool.h"
#include "services/telemetry/metrics.h"

namespace CLI {
class App;
}

namespace expertmesh::lifecycle {

struct ProcessOptions {
  std::string name = {};                     // unique in the mesh; empty: "<role>-<pid>"
  std::string role = {};                     // "expert-worker"
  std::string admin_listen = "127.0.0.1:0";  // HOST:PORT; port 0: any free one
  std::string advertise_host = {};           // what others put for 0.0.0.0 and [::]
  std::string announce_file = {};            // empty: Announce writes nothing
  int drain_seconds = 10;                    // how long open streams may take after a stop signal
  int stop_margin_seconds = 5;               // the process is ended so long after drain_seconds
  std::string log_level = "info";
};

/// Declares --name --admin-listen --advertise-host --announce-file --drain-seconds --log-level.
void AddProcessFlags(CLI::App& app, ProcessOptions& options);

/// Declares --threads and --cpus; base::CheckComputeThreads says whether they fit each other.
void AddThreadFlags(CLI::App& app, base::ComputeThreads& threads);

/// Declares --profile of the processes that compute with a model.
void AddProfileFlag(CLI::App& app, std::string& profile);

/// Declares --override of the processes that load a model: words "key=value", as they are given.
void AddOverrideFlag(CLI::App& app, std::vector<std::string>& overrides);

/// What /statusz and the gauges peer_up, peer_transport say of a peer. (role, name) is the key.
struct PeerStatus {
  std::string role = {};
  std::string name = {};
  std::string address = {};
  std::string state = {};   // "up" or "down"
  std::string reason = {};  // why it is down
  /// "inproc", "grpc" or "shm" for an expert worker that is up; empty: not said.
  std::string transport = {};
};

/// All methods are thread-safe. Owns the admin thread and the signal thread. Several may live in
/// one operating-system process (tests): a signal reaches all of them.
class Process {
 public:
  /// Installs the signal handlers, starts logging and serves the admin port; not ready, reason
  /// "starting". `metrics` outlives the Process. Errors: kInvalidArgument for an address that
  /// cannot be parsed or bound.
  static absl::StatusOr<std::unique_ptr<Process>> Start(ProcessOptions options,
                                                        telemetry::Metrics* metrics);
  ~Process();
  Process(const Process&) = delete;
  Process& operator=(const Process&) = delete;

  /// /readyz answers 200. Without effect once draining.
  void SetReady();
  /// /readyz answers 503 "not ready: <reason>".
  void SetNotReady(std::string reason);
  bool ready() const;
  std::string not_ready_reason() const;  // empty when ready

  /// Adds or replaces a peer; "since" is the moment its state last changed.
  void SetPeer(const PeerStatus& peer);
  void RemovePeer(const std::string& role, const std::string& name);

  /// Adds a key to /statusz; `json` returns a JSON value and runs on the admin thread, one at a
  /// time; it must not block for long nor call AddStatusSection or RemoveStatusSection. What it
  /// refers to must live until WaitForShutdown or RemoveStatusSection has returned.
  void AddStatusSection(std::string key, std::function<std::string()> json);
  void RemoveStatusSection(const std::string& key);

  /// Callbacks run once, on the signal thread, in the order they were added, after /readyz has
  /// turned to 503 "draining". Added later than that, a callback runs at once, in the caller.
  void OnDrain(std::function<void()> callback);
  bool draining() const;
  /// As if a stop signal had come, e.g. when a server of this process has failed.
  void RequestShutdown(const std::string& reason);

  /// Writes announce_file (temporary file, then rename): a JSON object of strings "name", "role",
  /// "grpc_address", "admin_address", "incarnation", the number "pid", and `extra`, e.g.
  /// {"http_address", …}. Errors: kInvalidArgument if the file cannot be written.
  absl::Status Announce(const std::string& grpc_address,
                        const std::map<std::string, std::string>& extra = {});

  /// Blocks until SIGTERM, SIGINT or RequestShutdown and until the drain callbacks have run; then
  /// drops the status sections. A second signal ends the process at once with status 130; a process
  /// still alive drain_seconds + stop_margin_seconds after the first is ended with status 1, also
  /// if it never came to this call.
  void WaitForShutdown();

  /// Random, not 0; new at every start.
  uint64_t incarnation() const;
  /// "127.0.0.1:41234", the port filled in.
  std::string admin_address() const;
  /// An address that this process listens on, as others should know it: --advertise-host in place
  /// of all interfaces.
  std::string Advertised(const std::string& address) const;
  const ProcessOptions& options() const;

 private:
  struct Impl;
  explicit Process(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace expertmesh::lifecycle

#include "CLI/CLI.hpp"
#include "services/lifecycle/process.h"

namespace expertmesh::lifecycle {

void AddProcessFlags(CLI::App& app, ProcessOptions& options) {
  app.add_option("--name", options.name, "Name of this process, unique in the mesh (<role>-<pid>)");
  app.add_option("--admin-listen", options.admin_listen,
                 "HOST:PORT of /livez /readyz /statusz /metrics; port 0 takes a free one")
      ->capture_default_str();
  app.add_option(
         "--advertise-host", options.advertise_host,
         "Host or IP that others reach this process by, where it listens on 0.0.0.0 or [::]")
      ->envname("EXPERTMESH_ADVERTISE_HOST");
  app.add_option("--announce-file", options.announce_file,
                 "File to write this process's addresses to, as JSON, once it listens");
  app.add_option("--drain-seconds", options.drain_seconds,
                 "How long open streams may take after a stop signal")
      ->capture_default_str()
      ->check(CLI::Range(0, 3600));
  app.add_option("--log-level", options.log_level, "Least severe level that is logged")
      ->capture_default_str()
      ->check(CLI::IsMember({"trace", "debug", "info", "warn", "error", "critical", "off"}));
}

void AddThreadFlags(CLI::App& app, base::ComputeThreads& threads) {
  app.add_option("--threads", threads.count, "Compute threads")
      ->check(CLI::Range(1, 1024))
      ->capture_default_str();
  app.add_option("--cpus", threads.cpus,
                 "CPU of each compute thread, comma-separated, e.g. 0,1; default: where the kernel "
                 "likes. For processes that share few cores, and for CPUs of their own")
      ->delimiter(',');
}

void AddProfileFlag(CLI::App& app, std::string& profile) {
  app.add_option(
         "--profile", profile,
         "Arithmetic: bf16, int8 (which keeps int4 and fp4 weights in four bits) or exact-f32")
      ->capture_default_str();
}

void AddOverrideFlag(CLI::App& app, std::vector<std::string>& overrides) {
  app.add_option("--override", overrides,
                 "KEY=VALUE of config.json, e.g. index_topk=32 or 'engram_layer_ids=[]'; may be "
                 "given several times. Changes the revision: give it to every process of a mesh")
      ->allow_extra_args(false);
}

}  // namespace expertmesh::lifecycle

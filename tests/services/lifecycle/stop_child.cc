// A process as small as can be, for stop_test: says on stdout what happens to it. Its one argument:
//   drain   stops as it should        stuck   its drain callback never returns
//   busy    never comes to WaitForShutdown (still loading, say)
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <string>

#include "services/lifecycle/process.h"

namespace {

void Say(const std::string& text) {
  std::puts(text.c_str());
  std::fflush(stdout);
}

}  // namespace

int main(int argc, char** argv) {
  const std::string mode = argc > 1 ? argv[1] : "";
  expertmesh::telemetry::Metrics metrics("example");
  expertmesh::lifecycle::ProcessOptions options;
  options.role = "example";
  options.log_level = "off";
  if (mode == "busy") options.drain_seconds = options.stop_margin_seconds = 0;
  auto started = expertmesh::lifecycle::Process::Start(options, &metrics);
  if (!started.ok()) return 3;
  const auto process = *std::move(started);
  process->OnDrain([&] {
    Say("drain: " + process->not_ready_reason());
    if (mode == "stuck") {
      for (;;) pause();
    }
  });
  process->SetReady();
  Say("ready");
  if (mode == "busy") {
    for (;;) pause();
  }
  process->WaitForShutdown();
  Say("end");
  return 0;
}

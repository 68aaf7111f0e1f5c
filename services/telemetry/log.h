// Logs: one line per event on stderr, UTC, with level, process name and pid. After InitLogging use
// spdlog::info("…{}…", x) and its sisters. Prompts, generated text and secrets never go into a log.
#pragma once

#include <string>

#include "spdlog/spdlog.h"

namespace expertmesh::telemetry {

/// Sets spdlog's default logger. Levels: trace, debug, info, warn, error, critical, off; another
/// word logs a warning and means info. Line breaks and control characters inside a message are
/// escaped. Call it once, first thing in main (lifecycle::Process::Start does).
void InitLogging(const std::string& process_name, const std::string& level);

}  // namespace expertmesh::telemetry

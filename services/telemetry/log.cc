#include "services/telemetry/log.h"

#include <memory>

#include "spdlog/pattern_formatter.h"
#include "spdlog/sinks/stdout_sinks.h"

namespace expertmesh::telemetry {
namespace {

// The message with control characters escaped: what came from a client cannot forge a log line.
class OneLineMessage final : public spdlog::custom_flag_formatter {
 public:
  void format(const spdlog::details::log_msg& message, const std::tm&,
              spdlog::memory_buf_t& out) override {
    for (const char c : message.payload) {
      const auto byte = static_cast<unsigned char>(c);
      if (byte >= 0x20 && byte != 0x7f) {
        out.push_back(c);
      } else {
        fmt::format_to(std::back_inserter(out), "\\x{:02x}", byte);
      }
    }
  }
  std::unique_ptr<custom_flag_formatter> clone() const override {
    return std::make_unique<OneLineMessage>();
  }
};

}  // namespace

void InitLogging(const std::string& process_name, const std::string& level) {
  auto logger = std::make_shared<spdlog::logger>(process_name,
                                                 std::make_shared<spdlog::sinks::stderr_sink_mt>());
  auto formatter = std::make_unique<spdlog::pattern_formatter>(spdlog::pattern_time_type::utc);
  formatter->add_flag<OneLineMessage>('*').set_pattern("%Y-%m-%dT%H:%M:%S.%eZ %l %n[%P] %*");
  logger->set_formatter(std::move(formatter));
  logger->flush_on(spdlog::level::info);
  const spdlog::level::level_enum wanted = spdlog::level::from_str(level);
  const bool known = wanted != spdlog::level::off || level == "off";  // from_str: else "off"
  logger->set_level(known ? wanted : spdlog::level::info);
  spdlog::set_default_logger(std::move(logger));
  if (!known) spdlog::warn("unknown log level '{}': using info", level);
}

}  // namespace expertmesh::telemetry

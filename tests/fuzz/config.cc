// config.json and --override: an error with a reason, or a config that survives being written and
// read again.
#include "model/config.h"

#include "services/base/status.h"
#include "tests/fuzz/fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace expertmesh;
  const std::vector<std::string> words = {std::string(fuzz::Text(data, size))};
  const auto overrides = model::ConfigOverrides::Parse(words);
  if (overrides.ok()) model::ParseConfig("{}", *overrides).status().IgnoreError();
  auto config = model::ParseConfig(fuzz::Text(data, size));
  if (!config.ok()) {
    fuzz::Require(base::ReasonOf(config.status()) == base::Reason::kBadConfig, "reason");
    return 0;
  }
  fuzz::Require(config->num_experts_per_tok <= config->n_routed_experts, "k of E");
  fuzz::Require(config->hidden_size > 0 && config->vocab_size > 0, "sizes");
  return 0;
}

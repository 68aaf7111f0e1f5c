#include "model/writer/gguf_tokenizer.h"

#include <vector>

#include "absl/strings/str_cat.h"
#include "model/checkpoint_files.h"
#include "model/tokenizer/chat_encoding.h"
#include "model/tokenizer/deepseek_splitter.h"
#include "model/tokenizer/tokenizer_spec.h"
#include "services/base/status.h"

namespace expertmesh::model {
namespace {

constexpr size_t kTokenizerBytesMax = size_t{64} << 20;
// Types of tokens.
constexpr int32_t kNormal = 1;
constexpr int32_t kControl = 3;
constexpr int32_t kUserDefined = 4;
constexpr int32_t kUnused = 5;

absl::Status AddTokens(const TokenizerSpec& spec, uint32_t vocab_size, GgufMetadata& metadata) {
  std::vector<std::string> tokens(vocab_size);
  std::vector<int32_t> types(vocab_size, kUnused);
  const auto set = [&](uint32_t id, const std::string& content, int32_t type) {
    if (id >= vocab_size) {
      return BadTokenizer(absl::StrCat("token ", ShowToken(content), " has the id ", id,
                                       ", the model has ", vocab_size, " rows"));
    }
    tokens[id] = content;
    types[id] = type;
    return absl::OkStatus();
  };
  for (const TokenEntry& entry : spec.vocab) {
    EM_RETURN_IF_ERROR(set(entry.id, entry.content, kNormal));
  }
  for (const AddedToken& token : spec.added_tokens) {
    EM_RETURN_IF_ERROR(set(token.id, token.content, token.special ? kControl : kUserDefined));
  }
  for (uint32_t id = 0; id < vocab_size; ++id) {
    if (types[id] == kUnused) tokens[id] = absl::StrCat("[PAD", id, "]");
  }
  metadata.AddStrings("tokenizer.ggml.tokens", tokens);
  metadata.AddI32s("tokenizer.ggml.token_type", types);
  return absl::OkStatus();
}

}  // namespace

absl::Status AddGgufTokenizer(const std::string& directory, const Config& config,
                              GgufMetadata& metadata) {
  const std::string path = JoinPath(directory, "tokenizer.json");
  EM_ASSIGN_OR_RETURN(const std::string text,
                      ReadSmallFile(path, kTokenizerBytesMax, base::Reason::kBadTokenizer));
  const absl::StatusOr<TokenizerSpec> spec = ParseTokenizerJson(text);
  if (!spec.ok()) return base::Annotate(spec.status(), path + ": ");
  if (!IsDeepseekSplit(spec->splits)) {
    return base::Error(base::Reason::kUnsupported,
                       path + ": only DeepSeek's pre-tokenizer has a name in GGUF files");
  }
  metadata.AddString("tokenizer.ggml.model", "gpt2");
  metadata.AddString("tokenizer.ggml.pre", "deepseek-v3");
  EM_RETURN_IF_ERROR(AddTokens(*spec, config.vocab_size, metadata));
  std::vector<std::string> merges;
  merges.reserve(spec->merges.size());
  for (const auto& [left, right] : spec->merges) merges.push_back(absl::StrCat(left, " ", right));
  metadata.AddStrings("tokenizer.ggml.merges", merges);
  if (config.bos_token_id) metadata.AddU32("tokenizer.ggml.bos_token_id", *config.bos_token_id);
  if (!config.eos_token_ids.empty()) {
    metadata.AddU32("tokenizer.ggml.eos_token_id", config.eos_token_ids.front());
  }
  if (config.pad_token_id) {
    metadata.AddU32("tokenizer.ggml.padding_token_id", *config.pad_token_id);
  }
  metadata.AddBool("tokenizer.ggml.add_bos_token", false);  // chat encodings write it themselves
  const std::string chat_template = LoadChatTemplate(directory);
  if (!chat_template.empty()) metadata.AddString("tokenizer.chat_template", chat_template);
  return absl::OkStatus();
}

}  // namespace expertmesh::model

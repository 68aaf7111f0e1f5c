// `expertmesh eval recall|perplexity|compare|memory-edit|load`: what a served model is worth,
// measured through the running mesh (docs/architecture.md §9 "Debug door").
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "cli/eval/chat_asker.h"
#include "cli/model_commands.h"

namespace expertmesh::cli {

struct RecallOptions {
  ChatAskOptions chat = {};
  std::string questions = {};  // file of Question lines
  std::string outside = {};    // file of prompts that nobody can answer; may be empty
  uint32_t wrong = 10;         // wrong answers shown
  std::string json = {};       // file for the report; may be empty
};
/// Exact match of greedy answers, trained and held-out wordings apart.
absl::Status EvalRecall(const RecallOptions& options, const Output& output);

/// What perplexity and compare take.
struct ScoreOptions {
  std::string server = {};     // gRPC address
  std::string reference = {};  // gRPC address; compare only
  std::string model = {};      // "" = the only one
  std::string texts = {};      // file of ScoredText lines
  unsigned concurrency = 4;
  uint32_t timeout_s = 600;  // of one text
  std::string json = {};
};
/// NLL, perplexity and share of likeliest tokens.
absl::Status EvalPerplexity(const ScoreOptions& options, const Output& output);
/// The same of two servers, and KL(reference ‖ server) position by position.
absl::Status EvalCompare(const ScoreOptions& options, const Output& output);

struct MemoryEditOptions {
  ChatAskOptions chat = {};
  std::string server = {};  // gRPC address of an attention worker or gateway
  std::string store = {};   // of the Engram store
  std::string model = {};   // directory
  std::vector<std::string> overrides = {};
  std::string encoding = "auto";  // --chat-encoding
  std::string questions = {};
  std::string first = {};  // entity
  std::string second = {};
  uint32_t others = 200;  // questions about others; 0 = all
  uint32_t lane_tokens = 400;
  bool keep = false;  // leave the exchanged version published
  std::string json = {};
};
/// Exchanges what the memory holds about two entities, looks at all answers, and rolls back.
absl::Status EvalMemoryEdit(const MemoryEditOptions& options, const Output& output);

struct LoadOptions {
  std::vector<std::string> experts = {};  // gRPC addresses of expert workers
  uint32_t timeout_s = 30;
  std::string json = {};
};
/// Largest share of any expert in each layer over the mean, since the workers' start.
absl::Status EvalLoad(const LoadOptions& options, const Output& output);

}  // namespace expertmesh::cli

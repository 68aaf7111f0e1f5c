// Sends requests to inference.v1 at their times and writes down when each token came. What
// `./mesh bench` plays its workloads with, over the whole mesh or one worker.
//
//   expertmesh-bench-client ADDRESS MODEL REQUESTS [--bypass-cache] [--logits FILE]
//
// REQUESTS is a file with one request a line: `at_ms max_tokens P p1 … pP F f1 … fF`, with P prompt
// ids and F tokens to take instead of the sampled ones (F = 0: sampled greedily). Prints one JSON
// object a line, in the order of the file; times are milliseconds since the first request was due.
// --logits appends the F32 logits of every token, [tokens, vocab] request by request.
#include <chrono>
#include <cinttypes>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <iostream>
#include <semaphore>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include "expertmesh/inference/v1/inference.grpc.pb.h"
#include "services/rpc/channel.h"
#include "services/rpc/identity.h"

namespace expertmesh {
namespace {

namespace pb = inference::v1;
using Clock = std::chrono::steady_clock;

constexpr std::chrono::minutes kPatience(30);

struct Request {
  double at_ms = 0;
  pb::GenerateRequest call;
};

struct Answer {
  double sent_ms = 0;
  std::vector<double> token_ms;
  std::vector<float> logits;
  uint32_t cached_prompt_tokens = 0;
  std::string error;
};

struct Options {
  std::string address;
  std::string model;
  std::string requests;
  std::string logits;
  bool bypass_cache = false;
};

bool ParseLine(const std::string& line, const Options& options, Request& request) {
  std::istringstream in(line);
  uint32_t max_tokens = 0;
  size_t count = 0;
  if (!(in >> request.at_ms >> max_tokens >> count)) return false;
  request.call.mutable_model()->set_model(options.model);
  request.call.set_max_tokens(max_tokens);
  request.call.mutable_debug()->set_ignore_eos(true);
  request.call.mutable_debug()->set_bypass_prefix_cache(options.bypass_cache);
  request.call.mutable_debug()->set_return_logits(!options.logits.empty());
  pb::TokenRun* prompt = request.call.add_segments()->mutable_tokens();
  uint32_t id = 0;
  for (size_t i = 0; i < count && in >> id; ++i) prompt->add_ids(id);
  if (!(in >> count)) return false;
  for (size_t i = 0; i < count && in >> id; ++i)
    request.call.mutable_debug()->add_forced_tokens(id);
  return static_cast<bool>(in);
}

bool ReadRequests(const Options& options, std::vector<Request>& requests) {
  std::ifstream file(options.requests);
  std::string line;
  while (std::getline(file, line)) {
    if (!ParseLine(line, options, requests.emplace_back())) {
      std::fprintf(stderr, "%s: line %zu is no request\n", options.requests.c_str(),
                   requests.size());
      return false;
    }
  }
  return !requests.empty();
}

Answer Play(pb::InferenceService::Stub& stub, const Request& request, Clock::time_point begin) {
  const auto now_ms = [&] {
    return std::chrono::duration<double, std::milli>(Clock::now() - begin).count();
  };
  const auto due = begin + std::chrono::duration_cast<Clock::duration>(
                               std::chrono::duration<double, std::milli>(request.at_ms));
  std::binary_semaphore never(0);
  (void)never.try_acquire_until(due);
  Answer answer;
  answer.token_ms.reserve(request.call.max_tokens());
  grpc::ClientContext context;
  rpc::PrepareClient(context, {}, kPatience);
  answer.sent_ms = now_ms();
  const auto reader = stub.Generate(&context, request.call);
  pb::GenerateResponse event;
  while (reader->Read(&event)) {
    if (event.has_started()) answer.cached_prompt_tokens = event.started().cached_prompt_tokens();
    if (!event.has_token()) continue;
    answer.token_ms.push_back(now_ms());
    const auto& logits = event.token().logits();
    answer.logits.insert(answer.logits.end(), logits.begin(), logits.end());
  }
  const grpc::Status status = reader->Finish();
  if (!status.ok()) answer.error = status.error_message();
  return answer;
}

void Print(const Request& request, const Answer& answer) {
  std::printf("{\"at_ms\": %.3f, \"sent_ms\": %.3f, \"prompt_tokens\": %d, \"cached\": %" PRIu32
              ", \"error\": %s, \"token_ms\": [",
              request.at_ms, answer.sent_ms, request.call.segments(0).tokens().ids_size(),
              answer.cached_prompt_tokens, answer.error.empty() ? "null" : "\"failed\"");
  for (size_t i = 0; i < answer.token_ms.size(); ++i) {
    std::printf("%s%.3f", i == 0 ? "" : ", ", answer.token_ms[i]);
  }
  std::printf("]}\n");
}

int Run(const Options& options) {
  std::vector<Request> requests;
  if (!ReadRequests(options, requests)) return 2;
  const auto channel = rpc::MakeChannel(options.address);
  if (!channel->WaitForConnected(std::chrono::system_clock::now() + std::chrono::seconds(30))) {
    std::fprintf(stderr, "nobody answers at %s\n", options.address.c_str());
    return 1;
  }
  const auto stub = pb::InferenceService::NewStub(channel);
  std::vector<Answer> answers(requests.size());
  std::vector<std::thread> threads;
  const Clock::time_point begin = Clock::now();
  for (size_t i = 0; i < requests.size(); ++i) {
    threads.emplace_back([&, i] { answers[i] = Play(*stub, requests[i], begin); });
  }
  for (std::thread& thread : threads) thread.join();
  std::ofstream logits;
  if (!options.logits.empty()) logits.open(options.logits, std::ios::binary | std::ios::trunc);
  bool good = true;
  for (size_t i = 0; i < requests.size(); ++i) {
    Print(requests[i], answers[i]);
    const std::vector<float>& values = answers[i].logits;
    logits.write(reinterpret_cast<const char*>(values.data()),
                 static_cast<std::streamsize>(values.size() * sizeof(float)));
    if (answers[i].error.empty()) continue;
    std::fprintf(stderr, "request %zu: %s\n", i, answers[i].error.c_str());
    good = false;
  }
  return good ? 0 : 1;
}

}  // namespace
}  // namespace expertmesh

int main(int argc, char** argv) {
  expertmesh::Options options;
  if (argc < 4) {
    std::cerr << "usage: " << argv[0]
              << " ADDRESS MODEL REQUESTS [--bypass-cache] [--logits FILE]\n";
    return 2;
  }
  options.address = argv[1];
  options.model = argv[2];
  options.requests = argv[3];
  for (int i = 4; i < argc; ++i) {
    if (std::strcmp(argv[i], "--bypass-cache") == 0) options.bypass_cache = true;
    if (std::strcmp(argv[i], "--logits") == 0 && i + 1 < argc) options.logits = argv[++i];
  }
  return expertmesh::Run(options);
}

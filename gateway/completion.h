// One request for an answer, of any dialect, from its body to its last byte.
#pragma once

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/awaitable.hpp>
#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "gateway/api.h"
#include "gateway/core/answer.h"
#include "gateway/core/http_target.h"
#include "gateway/generation.h"
#include "gateway/http_connection.h"
#include "gateway/request_log.h"
#include "gateway/waker.h"

namespace expertmesh::gateway {

/// Lives on the connection's strand, in the coroutine that awaits Run.
class Completion {
 public:
  /// All outlive it. `workers` runs what takes time in proportion to the prompt.
  Completion(const Api& api, HttpConnection& connection, boost::asio::any_io_executor workers,
             std::string request_id);

  /// Answers on the connection; returns the HTTP status for the counters: 499 where the client left
  /// first.
  boost::asio::awaitable<int> Run(Door door, const std::string& body);
  /// Ends the answer soon with `why`. On the strand.
  void Abort(const absl::Status& why);
  /// What the log says of it, after Run; without endpoint and status.
  RequestRecord record() const;

 private:
  template <class T>
  using Await = boost::asio::awaitable<T>;

  struct Prepared {
    ApiRequest request;
    Answer::Options options;
    inference::v1::GenerateRequest generate;
  };
  // One choice at its worker.
  struct Choice {
    std::unique_ptr<Generation> generation;  // null: not begun
    bool done = false;
    bool length = false;  // stopped at a limit
  };
  /// Parses and tokenizes; on a worker thread.
  std::variant<Prepared, ApiError> Prepare(const std::string& body) const;
  std::unique_ptr<AnswerFormat> MakeFormat(const Prepared& prepared) const;

  Await<int> Generate(Prepared prepared);
  Await<int> Pump();
  Await<bool> Wait();
  bool Collect();
  void BeginChoice(uint32_t choice);
  void BeginOthers();
  bool all_done() const;
  absl::Status TakeBatch(uint32_t choice, const Generation::Batch& batch);
  void NoteToken();
  Await<void> SendEvents(const std::string& events);
  Await<int> Finish();
  Await<int> Fail(const absl::Status& status);
  Await<int> Refuse(const ApiError& error);

  const Api& api_;
  HttpConnection& connection_;
  const boost::asio::any_io_executor workers_;
  const std::string request_id_;
  Door door_ = Door::kChat;
  Waker waker_;
  std::string worker_;  // name of the one that answers
  bool stream_ = false;
  bool begun_ = false;  // the stream's header is out
  std::optional<Answer> answer_;
  std::optional<MeshView::Target> target_;
  inference::v1::GenerateRequest generate_;
  std::vector<Choice> choices_;
  std::string events_;      // to send
  std::string error_code_;  // of the error that it ended with
  absl::Status abort_;      // not OK: end with this
  std::chrono::steady_clock::time_point start_;
  std::chrono::steady_clock::time_point last_token_;
};

}  // namespace expertmesh::gateway

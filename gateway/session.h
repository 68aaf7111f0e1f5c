// One HTTP connection: reads requests, answers them, notices when the client hangs up. Lives on one strand.
#pragma once

#include <boost/asio/awaitable.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/core/tcp_stream.hpp>
#include <boost/beast/http.hpp>
#include <memory>
#include <string>

#include "gateway/api.h"
#include "gateway/core/openai_response.h"
#include "gateway/generation.h"

namespace expertmesh::gateway {

class Session : public std::enable_shared_from_this<Session> {
 public:
  /// The socket's executor is the strand that everything runs on.
  Session(boost::asio::ip::tcp::socket socket, const Api& api);

  /// Serves requests until the connection ends.
  boost::asio::awaitable<void> Run();

 private:
  using Request = boost::beast::http::request<boost::beast::http::string_body>;
  template <class T>
  using Await = boost::asio::awaitable<T>;

  Await<bool> ReadRequest(Request& request);
  Await<void> Route(const Request& request);
  Await<void> Complete(const Request& request, bool chat);
  Await<void> AnswerWhole(Generation& generation, const ApiRequest& request);
  Await<void> AnswerStream(Generation& generation, const ApiRequest& request);
  Await<void> PumpStream(Generation& generation, const ApiRequest& request, Generation::Batch batch);

  Await<void> Send(int status, const std::string& body, int retry_after_s = 0,
                   const char* allow = nullptr);
  Await<void> SendError(const ApiError& error);
  Await<void> SendHeader();
  Await<void> Write(const std::string& text);
  Await<void> EndStream();

  /// Waits for events; an empty batch means that the client should get a keep-alive.
  Await<Generation::Batch> Next(Generation& generation);
  std::unique_ptr<Generation> Begin(const MeshView::Target& target,
                                    inference::v1::GenerateRequest request);
  void WatchForHangUp();
  void Wake();
  /// Adds the text of a batch to the answer; false once the answer is over.
  void Note(const inference::v1::GenerateResponse& event);
  void CountRequest(int status);

  const Api& api_;
  boost::beast::tcp_stream stream_;
  boost::beast::flat_buffer buffer_;
  boost::asio::steady_timer wake_;

  // Of the request in work.
  std::string request_id_;
  std::string endpoint_;
  unsigned http_version_ = 11;
  bool keep_alive_ = true;
  bool chunked_ = true;
  bool hung_up_ = false;
  bool watching_ = false;
  bool broken_ = false;  // nothing more can be written
  AnswerHead head_;
  Usage usage_;
  std::string finish_reason_;
  std::chrono::steady_clock::time_point start_;
  std::chrono::steady_clock::time_point last_token_;
  bool first_token_ = true;
};

}  // namespace expertmesh::gateway

// A gateway in this process in front of one fake attention worker, and raw HTTP clients for it.
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "expertmesh/router/v1/router.pb.h"
#include "gateway/http_server.h"
#include "services/lifecycle/process.h"
#include "services/telemetry/metrics.h"
#include "tests/gateway/fake_worker.h"
#include "tests/services/lifecycle/http_client.h"

namespace expertmesh::gateway {

inline constexpr char kModel[] = "tiny";
inline constexpr uint32_t kContext = 4096;

/// "POST <path>" with a JSON body; `headers` are whole lines ending in CRLF.
std::string Post(const std::string& path, const std::string& body, const std::string& headers = {});
/// {"model":"tiny","messages":[…hi…]} with more fields.
std::string ChatBody(const std::string& more = {});

/// An HTTP answer taken apart.
struct Answered {
  int status = 0;
  std::string head = {};  // status line and header lines
  std::string body = {};  // chunks joined
  bool complete = false;  // the body has its whole length, or its last chunk
  std::string Header(const std::string& name) const;  // lower-case name; "" if absent
};
/// Of bytes that may hold several answers: the first one, which is taken off.
Answered TakeAnswer(std::string& bytes);

class GatewayTest : public testing::Test {
 protected:
  GatewayTest();
  ~GatewayTest() override;

  /// With limits of the test's choice; else the first Address() starts it with the defaults.
  void StartHttp(HttpServer::Options options = {});
  std::string Address();
  /// Sends, reads until the server closes: the request should say so, or be the last.
  Answered Ask(const std::string& request);
  /// A chat request on a connection that closes after it.
  Answered AskChat(const std::string& more = {});

  /// A view with the fake worker in it, ready, changed by `change`.
  router::v1::View View(const std::function<void(router::v1::View&)>& change = {}) const;
  std::vector<uint32_t> Ids(const std::string& text) const;
  /// The value of a series as Prometheus sees it; 0 if absent.
  double Metric(const std::string& series) const;

  telemetry::Metrics metrics_{"gateway"};
  std::unique_ptr<lifecycle::Process> process_;
  FakeWorker worker_;
  Api api_;
  std::unique_ptr<MeshView> mesh_;
  std::optional<GatewayMetrics> counters_;
  std::unique_ptr<HttpServer> http_;
};

}  // namespace expertmesh::gateway

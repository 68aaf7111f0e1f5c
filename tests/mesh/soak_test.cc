// 10,000 short requests at 64 connections, kept ones and for the last tenth a new one for each:
// memory and descriptors of every process end where they were before.
#include <dirent.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <fstream>
#include <functional>
#include <thread>

#include "tests/support/http_client.h"
#include "tests/support/local_mesh.h"
#include "tests/support/tiny_model.h"

namespace expertmesh::test_support {
namespace {

using std::chrono::steady_clock;

// AddressSanitizer gives nothing back for a while, to see who still uses it.
#ifdef __SANITIZE_ADDRESS__
constexpr bool kKeepsFreedMemory = true;
#else
constexpr bool kKeepsFreedMemory = false;
#endif
constexpr int kConnections = 64;
constexpr int kWarmUp = 1000;
constexpr int kRequests = 10000;
constexpr size_t kMarginKiB = 8 << 10;  // an allocator's arenas
const std::vector<std::string> kProcesses = {"router", "expert-0",  "expert-1",
                                             "engram", "attention", "gateway"};

/// One kept connection.
class Client {
 public:
  explicit Client(const std::string& address) : fd_(HttpConnect(address)) {}
  ~Client() {
    if (fd_ >= 0) close(fd_);
  }
  Client(const Client&) = delete;
  Client& operator=(const Client&) = delete;

  /// The status; 0 if the connection broke.
  int Post(const std::string& body) {
    const std::string request =
        "POST /v1/completions HTTP/1.1\r\nHost: t\r\nContent-Type: application/json\r\n"
        "Content-Length: " +
        std::to_string(body.size()) + "\r\n\r\n" + body;
    if (send(fd_, request.data(), request.size(), MSG_NOSIGNAL) !=
        static_cast<ssize_t>(request.size())) {
      return 0;
    }
    std::string answer;
    size_t end = std::string::npos;
    while ((end = answer.find("\r\n\r\n")) == std::string::npos) {
      if (!Read(answer)) return 0;
    }
    const size_t length = answer.find("Content-Length: ");
    if (length > end) return 0;
    const size_t wanted = end + 4 + std::stoul(answer.substr(length + 16));
    while (answer.size() < wanted) {
      if (!Read(answer)) return 0;
    }
    return std::stoi(answer.substr(9, 3));
  }

 private:
  bool Read(std::string& answer) const {
    char bytes[4096];
    const ssize_t n = recv(fd_, bytes, sizeof(bytes), 0);
    if (n > 0) answer.append(bytes, static_cast<size_t>(n));
    return n > 0;
  }
  int fd_;
};

struct Use {
  size_t descriptors = 0;
  size_t resident_kib = 0;
};

Use UseOf(pid_t pid) {
  Use use;
  const std::string folder = "/proc/" + std::to_string(pid);
  if (DIR* fds = opendir((folder + "/fd").c_str())) {
    while (readdir(fds) != nullptr) ++use.descriptors;
    closedir(fds);
  }
  std::ifstream status(folder + "/status");
  for (std::string line; std::getline(status, line);) {
    if (line.rfind("VmRSS:", 0) == 0) use.resident_kib = std::stoul(line.substr(6));
  }
  return use;
}

class SoakTest : public testing::Test {
 protected:
  void SetUp() override {
    MeshSpec spec;
    spec.model = TinyModel("tiny");
    spec.slices = {"0-15", "16-31"};
    spec.gateway = true;
    spec.engram = true;
    mesh_ = std::make_unique<LocalMesh>(spec);
    ASSERT_TRUE(mesh_->WaitReady());
  }
  // `count` requests by 64 clients; every one is answered with 200, 429 or 503 and counted.
  void Ask(int count, bool keep) {
    std::atomic<int> next{0};
    std::vector<std::thread> clients;
    for (int c = 0; c < kConnections; ++c) {
      clients.emplace_back([&] {
        auto client = std::make_unique<Client>(mesh_->HttpAddress());
        for (int i = next++; i < count; i = next++) {
          if (!keep) client = std::make_unique<Client>(mesh_->HttpAddress());
          const int status =
              client->Post(R"({"model":"tiny","prompt":"request )" + std::to_string(i % 97) +
                           R"(","max_tokens":2,"temperature":0})");
          (status == 200 ? answered_ : status == 429 ? refused_ : broken_) += 1;
          if (status == 0) client = std::make_unique<Client>(mesh_->HttpAddress());
        }
      });
    }
    for (std::thread& client : clients) client.join();
  }
  std::map<std::string, Use> Uses() {
    std::map<std::string, Use> uses;
    for (const std::string& name : kProcesses) uses[name] = UseOf(mesh_->process(name).pid());
    return uses;
  }
  bool DescriptorsAreBack(const std::map<std::string, Use>& idle) {
    for (const auto& [name, use] : Uses()) {
      if (use.descriptors > idle.at(name).descriptors) return false;
    }
    return true;
  }

  std::unique_ptr<LocalMesh> mesh_;
  std::atomic<int> answered_{0};
  std::atomic<int> refused_{0};
  std::atomic<int> broken_{0};
};

TEST_F(SoakTest, TenThousandShortRequestsLeaveNothingBehind) {
  // One at a time first, so that the processes have dialled each other.
  const std::string body = R"({"model":"tiny","prompt":"first","max_tokens":2})";
  for (int i = 0; i < 8; ++i) {
    EXPECT_EQ(HttpPost(mesh_->HttpAddress(), "/v1/completions", body).status, 200);
  }
  const std::map<std::string, Use> idle = Uses();
  Ask(kWarmUp, true);
  const auto descriptors_back = [&] {
    const auto until = steady_clock::now() + kPatience;
    while (!DescriptorsAreBack(idle)) {
      if (steady_clock::now() > until) return false;
      HttpGet(mesh_->AdminAddress("gateway"), "/livez");
    }
    return true;
  };
  EXPECT_TRUE(descriptors_back());
  const std::map<std::string, Use> baseline = Uses();
  answered_ = 0;
  Ask(kRequests - kRequests / 10, true);
  Ask(kRequests / 10, false);
  EXPECT_EQ(answered_ + refused_, kRequests);
  EXPECT_EQ(broken_, 0);
  EXPECT_GT(answered_, kRequests * 9 / 10);
  EXPECT_TRUE(descriptors_back());
  for (const auto& [name, use] : Uses()) {
    const Use& before = baseline.at(name);
    std::printf("%-10s descriptors %zu then %zu, resident %zu then %zu KiB\n", name.c_str(),
                before.descriptors, use.descriptors, before.resident_kib, use.resident_kib);
    EXPECT_LE(use.descriptors, idle.at(name).descriptors) << name;
    if (kKeepsFreedMemory) continue;
    EXPECT_LE(use.resident_kib, before.resident_kib + before.resident_kib / 10 + kMarginKiB)
        << name;
  }
}

}  // namespace
}  // namespace expertmesh::test_support

// gRPC over HTTP/2 from a hostile peer, at both ends: whatever comes, messages hold what their
// lengths say, and what ends is told once.
#include <algorithm>
#include <map>
#include <memory>
#include <optional>
#include <set>

#include "google/protobuf/stubs/logging.h"
#include "services/base/status.h"
#include "services/transport/frame.h"
#include "services/transport/grpc_session.h"
#include "tests/fuzz/fuzz.h"

namespace expertmesh::fuzz {
namespace {

using transport::internal::Fields;
using transport::internal::GrpcSession;
using transport::internal::OutMessage;

template <class Frame>
class Reader final : public GrpcSession::Listener {
 public:
  void Use(GrpcSession* session, bool server) {
    session_ = session;
    server_ = server;
  }
  void OnFields(int32_t stream, const Fields& fields) override {
    Require(!closed_.contains(stream), "no news of a stream that is over");
    if (!server_) return;
    if (fields.contains("x-refuse")) {
      session_->Finish(stream, base::Error(base::Reason::kUnsupported, "no"));
    } else {
      session_->Accept(stream, {});
      session_->Send(stream, {"answer", transport::Buffer(100)});
    }
  }
  void OnMessage(int32_t stream, size_t bytes) override {
    auto& reader = readers_[stream];
    Require(!reader || reader->left() == 0, "the message before was whole");
    reader.emplace(bytes, *pool_);
  }
  void OnBytes(int32_t stream, std::span<const std::byte> bytes) override {
    auto& reader = readers_[stream];
    Require(reader.has_value() && bytes.size() <= reader->left(), "bytes of a message");
    reader->Feed(bytes);
    if (reader->left() == 0) (void)reader->Finish().ok();
  }
  void OnHalfClose(int32_t stream) override {
    Require(server_ && ended_.insert(stream).second, "a half ends once");
    session_->Finish(stream, absl::OkStatus());
  }
  void OnClosed(int32_t stream, const absl::Status& /*status*/) override {
    Require(closed_.insert(stream).second, "a stream ends once");
  }

 private:
  GrpcSession* session_ = nullptr;
  bool server_ = false;
  std::shared_ptr<transport::BufferPool> pool_ = std::make_shared<transport::BufferPool>();
  std::map<int32_t, std::optional<transport::FrameReader<Frame>>> readers_;
  std::set<int32_t> ended_, closed_;
};

void Drain(GrpcSession& session) {
  for (auto out = session.Out(); out.ok() && !out->empty(); out = session.Out()) {
    session.Sent(out->front().iov_len);
  }
}

template <class Frame>
void Talk(GrpcSession::Side side, std::span<const std::byte> bytes, size_t piece) {
  Reader<Frame> reader;
  GrpcSession session(side, reader);
  reader.Use(&session, side == GrpcSession::Side::kServer);
  if (side == GrpcSession::Side::kClient) {
    const int32_t stream = session.Open("/a/B", "localhost", {});
    session.Send(stream, {"question", transport::Buffer(100)});
  }
  Drain(session);
  while (!bytes.empty()) {
    const auto part = bytes.first(std::min(piece, bytes.size()));
    bytes = bytes.subspan(part.size());
    if (!session.Receive(part).ok()) return;
    Drain(session);
  }
}

}  // namespace
}  // namespace expertmesh::fuzz

extern "C" int LLVMFuzzerInitialize(int*, char***) {
  google::protobuf::SetLogHandler(nullptr);  // it would print a line per bad string
  return 0;
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace expertmesh;
  using transport::internal::GrpcSession;
  if (size < 2) return 0;
  const std::span<const std::byte> bytes = fuzz::Bytes(data + 2, size - 2);
  const size_t piece = data[1] + size_t{1};
  if (data[0] % 2 == 0) {
    fuzz::Talk<transport::DispatchFrame>(GrpcSession::Side::kServer, bytes, piece);
  } else {
    fuzz::Talk<transport::CombineFrame>(GrpcSession::Side::kClient, bytes, piece);
  }
  return 0;
}

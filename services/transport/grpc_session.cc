#include "services/transport/grpc_session.h"

#include <nghttp2/nghttp2.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "services/base/status.h"
#include "services/rpc/channel.h"
#include "services/rpc/status.h"

namespace expertmesh::transport::internal {
namespace {

using base::Error;
using base::Reason;

constexpr size_t kMessageHeadBytes = 5;  // compressed or not, then four bytes of length
constexpr size_t kFieldBytesMax = 16 << 10;
// More is left with nghttp2, which counts what it owes a peer that does not read.
constexpr size_t kOutBytesMax = 1 << 20;
constexpr size_t kMessageKeepBytes = 256;  // of a message beside its payload
constexpr uint32_t kStreamsMax = 16;
constexpr int kOkStatus = 200;
constexpr char kContentType[] = "application/grpc";
constexpr char kStatusKey[] = "grpc-status";
constexpr char kMessageKey[] = "grpc-message";

absl::Status Broken(const char* what) { return Error(Reason::kPeerLost, what); }

std::vector<nghttp2_nv> ToNv(const FieldList& fields) {
  std::vector<nghttp2_nv> nv;
  nv.reserve(fields.size());
  for (const auto& [name, value] : fields) {
    nv.push_back({reinterpret_cast<uint8_t*>(const_cast<char*>(name.data())),
                  reinterpret_cast<uint8_t*>(const_cast<char*>(value.data())), name.size(),
                  value.size(), NGHTTP2_NV_FLAG_NONE});
  }
  return nv;
}

// As gRPC wants it: everything but printable ASCII, and '%', as %XX.
std::string PercentEncode(std::string_view text) {
  std::string out;
  for (const char c : text) {
    if (absl::ascii_isprint(static_cast<unsigned char>(c)) && c != '%') {
      out.push_back(c);
    } else {
      absl::StrAppend(&out, "%", absl::Hex(static_cast<unsigned char>(c), absl::kZeroPad2));
    }
  }
  return out;
}

std::string PercentDecode(std::string_view text) {
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '%' && i + 2 < text.size() && absl::ascii_isxdigit(text[i + 1]) &&
        absl::ascii_isxdigit(text[i + 2])) {
      out += absl::HexStringToBytes(std::string(text.substr(i + 1, 2)));
      i += 2;
    } else {
      out.push_back(text[i]);
    }
  }
  return out;
}

absl::Status StatusOf(const Fields& trailers) {
  int code = 0;
  if (!absl::SimpleAtoi(FirstOf(trailers, kStatusKey), &code)) {
    return Broken("the stream ended without a status");
  }
  if (code < 0 || code > grpc::StatusCode::UNAUTHENTICATED) code = grpc::StatusCode::UNKNOWN;
  return rpc::FromGrpcStatus(grpc::Status(static_cast<grpc::StatusCode>(code),
                                          PercentDecode(FirstOf(trailers, kMessageKey))));
}

}  // namespace

std::string FirstOf(const Fields& fields, const char* name) {
  const auto it = fields.find(name);
  return it == fields.end() ? "" : it->second;
}

struct GrpcSession::Stream {
  Fields fields;  // of the block of fields that is coming in
  size_t field_bytes = 0;
  bool answered = false;  // client: the first block has come; server: one has been sent
  bool began = false;     // server: the answer has begun
  bool half_closed = false;
  absl::Status end;

  std::array<std::byte, kMessageHeadBytes> head;
  size_t head_bytes = 0;
  size_t message_left = 0;  // of the message that is coming in

  struct Outgoing {
    std::shared_ptr<const OutMessage> message;
    std::array<std::byte, kMessageHeadBytes> head;
    size_t bytes() const {
      return kMessageHeadBytes + message->prefix.size() + message->payload.size();
    }
  };
  std::deque<Outgoing> outgoing;
  size_t sent = 0;  // bytes of outgoing.front()
  bool finishing = false;
  FieldList trailers;
};

// What nghttp2 calls.
struct GrpcSession::Callbacks {
  static GrpcSession& Of(void* user) { return *static_cast<GrpcSession*>(user); }

  static int BeginHeaders(nghttp2_session*, const nghttp2_frame* frame, void* user) {
    GrpcSession& self = Of(user);
    auto& stream = self.streams_[frame->hd.stream_id];
    if (!stream) stream = std::make_unique<Stream>();
    stream->fields.clear();
    stream->field_bytes = 0;
    return 0;
  }

  static int Header(nghttp2_session*, const nghttp2_frame* frame, const uint8_t* name,
                    size_t name_bytes, const uint8_t* value, size_t value_bytes, uint8_t,
                    void* user) {
    Stream* stream = Of(user).Find(frame->hd.stream_id);
    if (stream == nullptr) return 0;
    stream->field_bytes += name_bytes + value_bytes;
    if (stream->field_bytes > kFieldBytesMax) return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
    stream->fields.emplace(std::string(reinterpret_cast<const char*>(name), name_bytes),
                           std::string(reinterpret_cast<const char*>(value), value_bytes));
    return 0;
  }

  static int FrameReceived(nghttp2_session*, const nghttp2_frame* frame, void* user) {
    GrpcSession& self = Of(user);
    const int32_t id = frame->hd.stream_id;
    Stream* stream = self.Find(id);
    if (stream == nullptr) return 0;
    const bool end = (frame->hd.flags & NGHTTP2_FLAG_END_STREAM) != 0;
    if (frame->hd.type == NGHTTP2_HEADERS) self.FieldsRead(id, *stream, end);
    if (!end || (stream = self.Find(id)) == nullptr) return 0;
    if (self.side_ == Side::kClient) {  // over, whatever this side still had to say
      if (stream->end.ok()) stream->end = Broken("the stream ended without a status");
      nghttp2_submit_rst_stream(self.session_, NGHTTP2_FLAG_NONE, id, NGHTTP2_CANCEL);
    } else if (stream->message_left > 0 || stream->head_bytes > 0) {
      self.Break(id, *stream, Broken("the stream ended inside a message"));
    } else if (!std::exchange(stream->half_closed, true)) {
      self.listener_.OnHalfClose(id);
    }
    return 0;
  }

  static int Data(nghttp2_session*, uint8_t, int32_t id, const uint8_t* data, size_t bytes,
                  void* user) {
    GrpcSession& self = Of(user);
    Stream* stream = self.Find(id);
    if (stream != nullptr) {
      self.TakeData(id, *stream, std::as_bytes(std::span(data, bytes)));
    }
    return 0;
  }

  static int Invalid(nghttp2_session*, const nghttp2_frame*, int error, void* user) {
    Of(user).fault_ = nghttp2_strerror(error);
    return 0;
  }

  static int Closed(nghttp2_session*, int32_t id, uint32_t error, void* user) {
    GrpcSession& self = Of(user);
    const auto it = self.streams_.find(id);
    if (it == self.streams_.end()) return 0;
    absl::Status status = it->second->end;
    if (status.ok() && error != NGHTTP2_NO_ERROR) {
      status = Broken(nghttp2_http2_strerror(error));
    }
    for (const Stream::Outgoing& left : it->second->outgoing) {
      self.outgoing_bytes_ -= left.bytes() + kMessageKeepBytes;
    }
    self.streams_.erase(it);
    self.listener_.OnClosed(id, status);
    return 0;
  }

  static ssize_t Send(nghttp2_session*, const uint8_t* data, size_t bytes, int, void* user) {
    GrpcSession& self = Of(user);
    if (self.out_bytes_ > kOutBytesMax) return NGHTTP2_ERR_WOULDBLOCK;
    self.Append(std::as_bytes(std::span(data, bytes)));
    return static_cast<ssize_t>(bytes);
  }

  static ssize_t Read(nghttp2_session* session, int32_t id, uint8_t*, size_t most, uint32_t* flags,
                      nghttp2_data_source* source, void*) {
    auto& stream = *static_cast<Stream*>(source->ptr);
    if (stream.outgoing.empty()) {
      if (!stream.finishing) return NGHTTP2_ERR_DEFERRED;
      *flags |= NGHTTP2_DATA_FLAG_EOF | NGHTTP2_DATA_FLAG_NO_END_STREAM;
      const auto nv = ToNv(stream.trailers);
      nghttp2_submit_trailer(session, id, nv.data(), nv.size());
      return 0;
    }
    *flags |= NGHTTP2_DATA_FLAG_NO_COPY;
    return static_cast<ssize_t>(std::min(most, stream.outgoing.front().bytes() - stream.sent));
  }

  static int SendData(nghttp2_session*, nghttp2_frame*, const uint8_t* head, size_t bytes,
                      nghttp2_data_source* source, void* user) {
    constexpr size_t kFrameHeadBytes = 9;
    GrpcSession& self = Of(user);
    if (self.out_bytes_ > kOutBytesMax) return NGHTTP2_ERR_WOULDBLOCK;
    auto& stream = *static_cast<Stream*>(source->ptr);
    self.Append(std::as_bytes(std::span(head, kFrameHeadBytes)));
    const Stream::Outgoing& out = stream.outgoing.front();
    const auto part = [&](std::span<const std::byte> whole, size_t first) {
      const size_t begin = std::max(stream.sent, first);
      const size_t end = std::min(stream.sent + bytes, first + whole.size());
      return begin < end ? whole.subspan(begin - first, end - begin) : std::span<const std::byte>();
    };
    const std::string& prefix = out.message->prefix;
    self.Append(part(out.head, 0));
    self.Append(part(std::as_bytes(std::span(prefix)), kMessageHeadBytes));
    const auto payload = part(out.message->payload.span(), kMessageHeadBytes + prefix.size());
    if (!payload.empty()) {
      const auto begin = static_cast<size_t>(payload.data() - out.message->payload.data());
      self.out_.push_back({{}, out.message, begin, begin + payload.size()});
      self.out_bytes_ += payload.size();
    }
    stream.sent += bytes;
    if (stream.sent == out.bytes()) {
      self.outgoing_bytes_ -= out.bytes() + kMessageKeepBytes;
      stream.outgoing.pop_front();
      stream.sent = 0;
    }
    return 0;
  }

  static ssize_t ReadLength(nghttp2_session*, uint8_t, int32_t, int32_t connection, int32_t window,
                            uint32_t frame, void*) {
    return std::min<int64_t>({connection, window, frame, rpc::kHttp2FrameBytes});
  }
};

GrpcSession::GrpcSession(Side side, Listener& listener) : side_(side), listener_(listener) {
  nghttp2_session_callbacks* calls = nullptr;
  nghttp2_session_callbacks_new(&calls);
  nghttp2_session_callbacks_set_on_begin_headers_callback(calls, Callbacks::BeginHeaders);
  nghttp2_session_callbacks_set_on_header_callback(calls, Callbacks::Header);
  nghttp2_session_callbacks_set_on_frame_recv_callback(calls, Callbacks::FrameReceived);
  nghttp2_session_callbacks_set_on_data_chunk_recv_callback(calls, Callbacks::Data);
  nghttp2_session_callbacks_set_on_invalid_frame_recv_callback(calls, Callbacks::Invalid);
  nghttp2_session_callbacks_set_on_stream_close_callback(calls, Callbacks::Closed);
  nghttp2_session_callbacks_set_send_callback(calls, Callbacks::Send);
  nghttp2_session_callbacks_set_send_data_callback(calls, Callbacks::SendData);
  nghttp2_session_callbacks_set_data_source_read_length_callback(calls, Callbacks::ReadLength);
  if (side == Side::kClient) {
    nghttp2_session_client_new(&session_, calls, this);
  } else {
    nghttp2_session_server_new(&session_, calls, this);
  }
  nghttp2_session_callbacks_del(calls);
  std::vector<nghttp2_settings_entry> settings = {
      {NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, rpc::kStreamWindowBytes},
      {NGHTTP2_SETTINGS_MAX_FRAME_SIZE, rpc::kHttp2FrameBytes},
      {NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, kFieldBytesMax}};
  if (side == Side::kClient) {
    settings.push_back({NGHTTP2_SETTINGS_ENABLE_PUSH, 0});
  } else {
    settings.push_back({NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, kStreamsMax});
  }
  nghttp2_submit_settings(session_, NGHTTP2_FLAG_NONE, settings.data(), settings.size());
  nghttp2_session_set_local_window_size(session_, NGHTTP2_FLAG_NONE, 0, rpc::kStreamWindowBytes);
}

GrpcSession::~GrpcSession() { nghttp2_session_del(session_); }

GrpcSession::Stream* GrpcSession::Find(int32_t stream) {
  const auto it = streams_.find(stream);
  return it == streams_.end() ? nullptr : it->second.get();
}

absl::Status GrpcSession::Receive(std::span<const std::byte> bytes) {
  const ssize_t taken = nghttp2_session_mem_recv(
      session_, reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size());
  if (taken >= 0) return absl::OkStatus();
  fault_ = nghttp2_strerror(static_cast<int>(taken));
  return Broken(fault_.c_str());
}

bool GrpcSession::over() const {
  return nghttp2_session_want_read(session_) == 0 && nghttp2_session_want_write(session_) == 0;
}

// A whole block of fields has come.
void GrpcSession::FieldsRead(int32_t id, Stream& stream, bool end) {
  if (side_ == Side::kServer) {
    if (!std::exchange(stream.answered, true)) listener_.OnFields(id, stream.fields);
    return;
  }
  int http = 0;
  const bool trailers = std::exchange(stream.answered, true) || end;
  if (trailers) {
    stream.end = StatusOf(stream.fields);
    if (stream.end.ok()) stream.end = Broken("closed by the peer");
    return;
  }
  if (!absl::SimpleAtoi(FirstOf(stream.fields, ":status"), &http) || http != kOkStatus) {
    return Break(id, stream, Broken("the peer does not answer as gRPC does"));
  }
  listener_.OnFields(id, stream.fields);
}

void GrpcSession::TakeData(int32_t id, Stream& stream, std::span<const std::byte> bytes) {
  while (!bytes.empty() && stream.end.ok()) {
    if (stream.message_left == 0) {
      const size_t count = std::min(bytes.size(), kMessageHeadBytes - stream.head_bytes);
      std::memcpy(stream.head.data() + stream.head_bytes, bytes.data(), count);
      bytes = bytes.subspan(count);
      stream.head_bytes += count;
      if (stream.head_bytes < kMessageHeadBytes) return;
      stream.head_bytes = 0;
      size_t length = 0;
      for (size_t i = 1; i < kMessageHeadBytes; ++i) {
        length = length << 8 | static_cast<uint8_t>(stream.head[i]);
      }
      if (stream.head[0] != std::byte{0}) {
        return Break(id, stream, Broken("a compressed message, which was not agreed"));
      }
      if (length > static_cast<size_t>(rpc::kMessageBytesMax)) {
        return Break(id, stream, Broken("a message is too long"));
      }
      stream.message_left = length;
      listener_.OnMessage(id, length);
      if (length == 0) listener_.OnBytes(id, {});
      continue;
    }
    const size_t count = std::min(bytes.size(), stream.message_left);
    stream.message_left -= count;
    listener_.OnBytes(id, bytes.first(count));
    bytes = bytes.subspan(count);
  }
}

void GrpcSession::Break(int32_t id, Stream& stream, absl::Status why) {
  if (!stream.end.ok()) return;
  fault_ = std::string(why.message());
  stream.end = std::move(why);
  nghttp2_submit_rst_stream(session_, NGHTTP2_FLAG_NONE, id, NGHTTP2_PROTOCOL_ERROR);
}

int32_t GrpcSession::Open(const std::string& path, const std::string& authority,
                          const Fields& metadata) {
  FieldList fields = {{":method", "POST"},
                      {":scheme", "http"},
                      {":path", path},
                      {":authority", authority},
                      {"content-type", kContentType},
                      {"te", "trailers"},
                      {"user-agent", "expertmesh"}};
  fields.insert(fields.end(), metadata.begin(), metadata.end());
  auto stream = std::make_unique<Stream>();
  const auto nv = ToNv(fields);
  nghttp2_data_provider provider;
  provider.source.ptr = stream.get();
  provider.read_callback = Callbacks::Read;
  const int32_t id =
      nghttp2_submit_request(session_, nullptr, nv.data(), nv.size(), &provider, nullptr);
  if (id > 0) streams_[id] = std::move(stream);
  return id;
}

void GrpcSession::Accept(int32_t id, const Fields& metadata) {
  Stream* stream = Find(id);
  if (stream == nullptr) return;
  Respond(id, *stream, {metadata.begin(), metadata.end()}, /*only=*/false);
}

// The first fields of an answer; `only`: there is no more of it.
void GrpcSession::Respond(int32_t id, Stream& stream, const FieldList& more, bool only) {
  FieldList fields = {{":status", std::to_string(kOkStatus)}, {"content-type", kContentType}};
  fields.insert(fields.end(), more.begin(), more.end());
  const auto nv = ToNv(fields);
  nghttp2_data_provider provider;
  provider.source.ptr = &stream;
  provider.read_callback = Callbacks::Read;
  nghttp2_submit_response(session_, id, nv.data(), nv.size(), only ? nullptr : &provider);
  stream.began = true;
}

void GrpcSession::Finish(int32_t id, const absl::Status& status) {
  Stream* stream = Find(id);
  if (stream == nullptr || stream->finishing) return;
  const grpc::Status sent = rpc::ToGrpcStatus(status);
  stream->trailers = {{kStatusKey, std::to_string(sent.error_code())}};
  if (!sent.ok()) {
    stream->trailers.emplace_back(kMessageKey, PercentEncode(sent.error_message()));
    if (!sent.error_details().empty()) {
      stream->trailers.emplace_back("grpc-status-details-bin",
                                    absl::Base64Escape(sent.error_details()));
    }
  }
  stream->finishing = true;
  if (!stream->began) return Respond(id, *stream, stream->trailers, /*only=*/true);
  nghttp2_session_resume_data(session_, id);
}

void GrpcSession::Send(int32_t id, OutMessage message) {
  Stream* stream = Find(id);
  if (stream == nullptr || stream->finishing) return;
  Stream::Outgoing out;
  const size_t length = message.prefix.size() + message.payload.size();
  out.message = std::make_shared<const OutMessage>(std::move(message));
  out.head[0] = std::byte{0};
  for (size_t i = 1; i < kMessageHeadBytes; ++i) {
    out.head[i] = static_cast<std::byte>(length >> (8 * (kMessageHeadBytes - 1 - i)));
  }
  outgoing_bytes_ += out.bytes() + kMessageKeepBytes;
  stream->outgoing.push_back(std::move(out));
  nghttp2_session_resume_data(session_, id);
}

void GrpcSession::Ping() { nghttp2_submit_ping(session_, NGHTTP2_FLAG_NONE, nullptr); }

void GrpcSession::GoAway() {
  nghttp2_submit_goaway(session_, NGHTTP2_FLAG_NONE,
                        nghttp2_session_get_last_proc_stream_id(session_), NGHTTP2_NO_ERROR,
                        nullptr, 0);
}

const std::byte* GrpcSession::Chunk::data() const {
  return (kept ? kept->payload.data() : reinterpret_cast<const std::byte*>(bytes.data())) + begin;
}

void GrpcSession::Append(std::span<const std::byte> bytes) {
  if (bytes.empty()) return;
  if (out_.empty() || out_.back().kept) out_.emplace_back();
  Chunk& last = out_.back();
  last.bytes.append(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  last.end = last.bytes.size();
  out_bytes_ += bytes.size();
}

absl::StatusOr<std::span<const iovec>> GrpcSession::Out() {
  const int error = nghttp2_session_send(session_);
  if (error != 0) return Broken(nghttp2_strerror(error));
  size_t count = 0;
  for (const Chunk& chunk : out_) {
    if (count == iov_.size()) break;
    iov_[count++] = {const_cast<std::byte*>(chunk.data()), chunk.end - chunk.begin};
  }
  return std::span<const iovec>(iov_.data(), count);
}

void GrpcSession::Sent(size_t bytes) {
  out_bytes_ -= bytes;
  while (bytes > 0) {
    Chunk& front = out_.front();
    const size_t count = std::min(bytes, front.end - front.begin);
    front.begin += count;
    bytes -= count;
    if (front.begin == front.end) out_.pop_front();
  }
}

}  // namespace expertmesh::transport::internal

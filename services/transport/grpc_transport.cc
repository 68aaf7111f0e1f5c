#include "services/transport/grpc_transport.h"

#include <utility>
#include <vector>

#include "services/base/status.h"
#include "services/transport/dispatch_stream.h"

namespace expertmesh::transport {

GrpcTransport::GrpcTransport(uint64_t incarnation, PeerListener listener)
    : incarnation_(incarnation),
      listener_(std::move(listener)),
      buffers_(std::make_shared<BufferPool>()) {}

GrpcTransport::~GrpcTransport() {
  std::map<std::string, Link> links;
  {
    std::lock_guard lock(mutex_);
    links.swap(links_);
  }
  for (auto& [name, link] : links) StopLink(std::move(link), "the transport stopped");
}

Capabilities GrpcTransport::capabilities() const {
  return {.dynamic_peers = true, .reorders = true, .cancels = true};
}

void GrpcTransport::AddPeer(const Peer& peer) {
  Link old;
  {
    std::lock_guard lock(mutex_);
    const auto it = links_.find(peer.name);
    if (it != links_.end()) {
      if (it->second.peer == peer) return;
      old = std::move(it->second);
      links_.erase(it);
    }
  }
  StopLink(std::move(old), "replaced by a newer incarnation");
  // A peer is up while all of its streams are.
  struct UpCount {
    std::recursive_mutex mutex;  // held while the listener is told, which may remove the peer
    size_t up = 0;
  };
  auto count = std::make_shared<UpCount>();
  Link link;
  link.peer = peer;
  for (auto& stream : link.streams) {
    auto was_up = std::make_shared<bool>(false);
    stream = std::make_shared<internal::DispatchStream>(
        peer, incarnation_, buffers_, reactor_.reactor(),
        [this, count, was_up, name = peer.name, all = link.streams.size()](bool up,
                                                                           const std::string& why) {
          std::lock_guard lock(count->mutex);
          if (*was_up == up) return;
          const bool before = count->up == all;
          *was_up = up;
          count->up += up ? 1 : -1;
          if (before != (count->up == all) && listener_) listener_(name, up, why);
        });
  }
  std::lock_guard lock(mutex_);
  for (auto& stream : link.streams) stream->Start();
  links_.emplace(peer.name, std::move(link));
}

void GrpcTransport::RemovePeer(const std::string& name) {
  Link link;
  {
    std::lock_guard lock(mutex_);
    const auto it = links_.find(name);
    if (it == links_.end()) return;
    link = std::move(it->second);
    links_.erase(it);
  }
  StopLink(std::move(link), "peer " + name + " was removed");
}

void GrpcTransport::StopLink(Link link, const std::string& why) {
  for (auto& stream : link.streams) {
    if (stream) stream->Stop(why);
  }
}

void GrpcTransport::Submit(const std::string& peer, Purpose purpose, DispatchFrame frame,
                           Completion done) {
  std::shared_ptr<internal::DispatchStream> stream;
  {
    std::lock_guard lock(mutex_);
    const auto it = links_.find(peer);
    if (it != links_.end()) stream = it->second.streams[static_cast<size_t>(purpose)];
  }
  if (stream) {
    stream->Submit(std::move(frame), std::move(done));
  } else {
    done(base::Error(base::Reason::kPeerLost, "no peer named " + peer));
  }
}

void GrpcTransport::Wait(Bell& bell, std::optional<base::Micros> wait) {
  Bell* const bells[] = {&bell};
  reactor_.Wait(bells, wait);
  bell.Take();
}

void GrpcTransport::Wait(Bell& bell, Bell& other, std::optional<base::Micros> wait) {
  Bell* const bells[] = {&bell, &other};
  reactor_.Wait(bells, wait);
  bell.Take();
}

void GrpcTransport::Cancel(uint64_t call_id) {
  std::vector<std::shared_ptr<internal::DispatchStream>> streams;
  {
    std::lock_guard lock(mutex_);
    for (auto& [name, link] : links_)
      streams.insert(streams.end(), link.streams.begin(), link.streams.end());
  }
  for (auto& stream : streams) {
    if (stream->Cancel(call_id)) return;
  }
}

}  // namespace expertmesh::transport

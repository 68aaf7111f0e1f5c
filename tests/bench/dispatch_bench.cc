// What a MoE layer costs beside its arithmetic: the same dispatcher over inproc, grpc on a Unix
// socket and shm, with two expert workers in processes of their own that answer the same step with
// real partial rows. p50 of 10,000 layers, in alternated blocks of one run. Also the bytes that a
// token and layer put on the wire, by row type.
#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <condition_variable>
#include <cstdio>
#include <cstring>
#include <functional>
#include <map>
#include <mutex>
#include <random>
#include <thread>

#include "attention-worker/expert_dispatcher.h"
#include "attention-worker/inproc_experts.h"
#include "expert-worker/expert_engine.h"
#include "services/rpc/deadlock_search.h"
#include "services/rpc/server.h"
#include "services/transport/expert_server.h"
#include "services/transport/frame_door.h"
#include "services/transport/grpc_transport.h"
#include "services/transport/inproc.h"
#include "services/transport/shm_transport.h"
#include "tests/support/child_process.h"
#include "tests/support/temp_dir.h"

namespace expertmesh {
namespace {

using SteadyTime = std::chrono::steady_clock;

// The shapes of bench-1b.
constexpr size_t kHidden = 1024;
constexpr uint32_t kExperts = 64;
constexpr size_t kTopK = 16;
constexpr char kFrames[] = ".frames";  // address of a worker's frames behind its own
constexpr int kBlocks = 20;
constexpr int kLayersOfABlock = 500;  // · kBlocks = 10,000
constexpr char kRevision[] = "00000000000000000000000000000000000000000000000000000000000bench";

/// Experts whose arithmetic costs next to nothing: a partial is its row times the sum of weights.
class CheapSlice final : public model::ExpertSlice {
 public:
  CheapSlice(uint32_t begin, uint32_t end, base::Dtype wire) : begin_(begin), end_(end) {
    profile_ = *model::ParseProfile("bf16");
    profile_.wire = wire;
  }
  void Compute(const model::ExpertBatch& batch, base::ThreadPool&,
               std::span<float> sums) const override {
    for (size_t p = 0; p < batch.partials.size(); ++p) {
      const size_t row = batch.partials[p].row;
      float weight = 0;
      for (uint32_t i = batch.row_offsets[row]; i < batch.row_offsets[row + 1]; ++i) {
        weight += batch.expert_weights[i];
      }
      const auto* values = reinterpret_cast<const uint16_t*>(batch.rows) + row * kHidden;
      float* out = sums.data() + p * kHidden;
      if (batch.row_dtype != base::Dtype::kBf16) {
        std::fill_n(out, kHidden, weight);
        continue;
      }
      for (size_t c = 0; c < kHidden; ++c) {
        const uint32_t bits = uint32_t{values[c]} << 16;
        float value = 0;
        std::memcpy(&value, &bits, sizeof(value));
        out[c] = weight * value;
      }
    }
  }
  bool Hosts(uint32_t expert) const override { return expert >= begin_ && expert < end_; }
  bool HasRoutedExperts(uint32_t) const override { return true; }
  uint32_t hidden_size() const override { return kHidden; }
  uint32_t expert_count() const override { return kExperts; }
  uint64_t weight_bytes() const override { return 0; }
  const std::string& revision() const override { return revision_; }
  const model::Profile& profile() const override { return profile_; }
  const std::string& fingerprint() const override { return revision_; }

 private:
  const uint32_t begin_;
  const uint32_t end_;
  const std::string revision_ = kRevision;
  model::Profile profile_;
};

/// An expert worker as its process has it, until it is killed.
int Serve(uint32_t begin, uint32_t end, const std::string& address) {
  base::SteadyClock clock;
  telemetry::Metrics metrics("expert_worker");
  expert_worker::ExpertEngine engine(std::make_unique<CheapSlice>(begin, end, base::Dtype::kBf16),
                                     {}, clock, metrics);
  transport::ShmServer::Options options;
  options.handler = [&](absl::StatusOr<transport::DispatchFrame> f, transport::Reply r) {
    engine.Queue(std::move(f), std::move(r));
  };
  options.drained = [&] { engine.ServeQueued(); };
  auto rings = transport::ShmServer::Start(options);
  if (!rings.ok()) return 1;
  transport::FrameDoor::Options frames;
  frames.listen = address + kFrames;
  frames.incarnation = 1;
  frames.handler = options.handler;
  frames.drained = options.drained;
  const auto door = transport::FrameDoor::Start(std::move(frames));
  if (!door.ok()) return 1;
  transport::ExpertServer service(
      1,
      [&](const expert::v1::DescribeRequest& request) { return engine.Describe(request.load()); },
      rings->get());
  auto server = rpc::Server::Start({address, &metrics}, {&service});
  if (!server.ok()) return 1;
  for (;;) pause();
}

attention_worker::PlacementView ViewOf(const std::vector<std::string>& addresses) {
  attention_worker::PlacementView view;
  view.term = view.number = 1;
  view.expert_count = kExperts;
  const auto share = static_cast<uint32_t>(kExperts / addresses.size());
  for (uint32_t i = 0; i < addresses.size(); ++i) {
    const std::vector<base::ExpertRange> range = {{i * share, (i + 1) * share}};
    view.pools.push_back(
        {base::SliceName(range),
         range,
         {{"expert-" + std::to_string(i), 1, addresses[i], addresses[i] + kFrames}}});
  }
  return view;
}

/// One layer of `rows` tokens with random rows and gate choices.
struct Layer {
  explicit Layer(size_t row_count, uint32_t seed) : row_count(row_count) {
    std::mt19937 rng(seed);
    std::normal_distribution<float> normal;
    std::vector<uint16_t> all(kExperts);
    for (uint16_t e = 0; e < kExperts; ++e) all[e] = e;
    for (size_t r = 0; r < row_count; ++r) {
      std::shuffle(all.begin(), all.end(), rng);
      std::vector<uint16_t> chosen(all.begin(), all.begin() + kTopK);
      std::sort(chosen.begin(), chosen.end());
      experts.insert(experts.end(), chosen.begin(), chosen.end());
      for (size_t c = 0; c < kHidden; ++c) rows.push_back(normal(rng));
    }
    weights.assign(row_count * kTopK, 1.0f / kTopK);
    alive.assign(row_count, 1);
  }
  model::MoeCall Call(uint32_t layer) const {
    return {layer, 0, 0, row_count, kHidden, kTopK, rows, experts, weights, alive};
  }
  size_t row_count;
  std::vector<float> rows;
  std::vector<uint16_t> experts;
  std::vector<float> weights;
  std::vector<uint8_t> alive;
};

/// A dispatcher over one transport.
class Side {
 public:
  using MakeTransport =
      std::function<std::unique_ptr<transport::Transport>(transport::PeerListener)>;
  Side(std::string name, base::Dtype wire, const MakeTransport& make,
       const attention_worker::PlacementView& view, const std::string& how)
      : name(std::move(name)), metrics_("attention_worker") {
    attention_worker::ExpertDispatcher::Options options{"bench", kRevision, {}, {}, 0};
    options.profile = *model::ParseProfile("bf16");
    options.profile.wire = wire;
    dispatcher_ = std::make_unique<attention_worker::ExpertDispatcher>(options, clock_, metrics_);
    transport_ = make([this](const std::string& peer, bool up, const std::string& why) {
      dispatcher_->SetPeerUp(peer, up);
      std::lock_guard lock(mutex_);
      how_[peer] = up ? why : "";
      changed_.notify_all();
    });
    dispatcher_->Attach(transport_.get());
    dispatcher_->SetView(view);
    std::unique_lock lock(mutex_);
    const bool up = changed_.wait_for(lock, std::chrono::seconds(30), [&] {
      return how_.size() == view.pools.size() &&
             std::all_of(how_.begin(), how_.end(), [&](auto& p) { return p.second == how; });
    });
    if (!up) {
      std::fprintf(stderr, "no connection over %s\n", how.c_str());
      std::exit(1);
    }
  }
  // Microseconds of one layer; ends the program if it fails.
  double Run(const Layer& layer, uint32_t number) {
    std::vector<attention_worker::StepLane> lanes(layer.row_count);
    for (auto& lane : lanes) {
      lane.row_count = 1;
      lane.deadline = clock_.Now() + std::chrono::seconds(60);
    }
    dispatcher_->BeginStep(std::move(lanes), true);
    out_.resize(layer.row_count * kHidden);
    alive_ = layer.alive;
    const auto start = SteadyTime::now();
    dispatcher_->Begin(layer.Call(number));
    dispatcher_->Finish(0, out_, alive_);
    const std::chrono::duration<double, std::micro> took = SteadyTime::now() - start;
    if (std::find(alive_.begin(), alive_.end(), 0) != alive_.end()) {
      std::fprintf(stderr, "%s: %s\n", name.c_str(), dispatcher_->failure(0).ToString().c_str());
      std::exit(1);
    }
    return took.count();
  }
  const std::vector<float>& out() const { return out_; }

  const std::string name;

 private:
  base::SteadyClock clock_;
  telemetry::Metrics metrics_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::map<std::string, std::string> how_;  // guarded by mutex_
  std::unique_ptr<attention_worker::ExpertDispatcher> dispatcher_;
  std::unique_ptr<transport::Transport> transport_;
  std::vector<float> out_;
  std::vector<uint8_t> alive_;
};

double Quantile(std::vector<double> values, double q) {
  std::sort(values.begin(), values.end());
  return values[static_cast<size_t>(q * static_cast<double>(values.size() - 1))];
}

void Compare(const std::vector<std::unique_ptr<Side>>& sides, size_t rows) {
  const Layer layer(rows, 1);
  std::vector<std::vector<double>> times(sides.size());
  for (int block = -1; block < kBlocks; ++block) {  // the first warms up
    for (size_t s = 0; s < sides.size(); ++s) {
      for (int i = 0; i < kLayersOfABlock; ++i) {
        const double us = sides[s]->Run(layer, static_cast<uint32_t>(i % 11));
        if (block >= 0) times[s].push_back(us);
      }
    }
  }
  const std::vector<float> sums = sides[0]->out();
  std::string json = "{\"bench\":\"dispatch\",\"rows\":" + std::to_string(rows);
  for (size_t s = 0; s < sides.size(); ++s) {
    const double p50 = Quantile(times[s], 0.5);
    const double added = p50 - Quantile(times[0], 0.5);
    const bool same = sides[s]->out() == sums;
    std::printf("%4zu rows  %-8s p50 %8.1f us  p90 %8.1f us  p99 %8.1f us  added %+7.1f us  %s\n",
                rows, sides[s]->name.c_str(), p50, Quantile(times[s], 0.9),
                Quantile(times[s], 0.99), added, same ? "same bits" : "OTHER BITS");
    json += ",\"" + sides[s]->name + "_p50_us\":" + std::to_string(p50);
    if (!same) std::exit(1);
  }
  std::printf("%s}\n", json.c_str());
}

/// Answers at once and counts the bytes of the frames both ways.
class CountingTransport final : public transport::Transport {
 public:
  CountingTransport(base::Dtype wire, transport::PeerListener listener)
      : listener_(std::move(listener)),
        experts_(std::make_unique<CheapSlice>(0, kExperts, wire), base::ComputeThreads{1}) {}
  transport::Capabilities capabilities() const override { return {.dynamic_peers = true}; }
  void AddPeer(const transport::Peer& peer) override { listener_(peer.name, true, "counted"); }
  void RemovePeer(const std::string&) override {}
  void Cancel(uint64_t) override {}
  void Submit(const std::string&, transport::Purpose, transport::DispatchFrame frame,
              transport::Completion done) override {
    out_bytes +=
        transport::MessagePrefix(frame.header.SerializeAsString(), frame.payload.size()).size() +
        frame.payload.size();
    experts_.OnFrame(std::move(frame), [&](transport::CombineFrame answer) {
      back_header_bytes +=
          transport::MessagePrefix(answer.header.SerializeAsString(), answer.payload.size()).size();
      sum_bytes += answer.payload.size();
      done(std::move(answer));
    });
  }
  size_t out_bytes = 0;
  size_t back_header_bytes = 0;
  size_t sum_bytes = 0;

 private:
  const transport::PeerListener listener_;
  attention_worker::InprocExperts experts_;
};

// Four workers; against a bf16 row out and back for each of the chosen experts.
void CountWireBytes(const char* name, base::Dtype wire, size_t rows) {
  const Layer layer(rows, 2);
  CountingTransport* counter = nullptr;
  Side side(
      name, wire,
      [&](transport::PeerListener listener) {
        auto made = std::make_unique<CountingTransport>(wire, std::move(listener));
        counter = made.get();
        return made;
      },
      ViewOf({"a", "b", "c", "d"}), "counted");
  side.Run(layer, 1);
  const double naive = 2.0 * kTopK * kHidden * 2.0 * static_cast<double>(rows);
  const auto back = static_cast<double>(counter->back_header_bytes);
  const auto sums = static_cast<double>(counter->sum_bytes);
  const auto out = static_cast<double>(counter->out_bytes);
  std::printf("%4zu rows  %-8s %8.0f bytes a token and layer, %.4f of naive; with bf16 sums %.4f\n",
              rows, name, (out + back + sums) / static_cast<double>(rows),
              (out + back + sums) / naive, (out + back + sums / 2) / naive);
  std::printf("{\"bench\":\"wire\",\"rows\":%zu,\"dtype\":\"%s\",\"of_naive\":%.5f}\n", rows, name,
              (out + back + sums) / naive);
}

int Main(const std::string& self) {
  rpc::TurnDeadlockSearchOff();  // as the workers of a mesh
  const test_support::TempDir dir;
  std::vector<std::string> addresses;
  std::vector<test_support::ChildProcess> workers;
  for (uint32_t i = 0; i < 2; ++i) {
    addresses.push_back("unix:" + (dir / ("w" + std::to_string(i))));
    workers.emplace_back(
        std::vector<std::string>{self, "--serve", std::to_string(i * kExperts / 2),
                                 std::to_string((i + 1) * kExperts / 2), addresses.back()},
        dir / ("w" + std::to_string(i) + ".log"));
  }
  attention_worker::InprocExperts local(
      std::make_unique<CheapSlice>(0, kExperts, base::Dtype::kBf16), base::ComputeThreads{1});
  std::vector<std::unique_ptr<Side>> sides;
  const auto bf16 = base::Dtype::kBf16;
  sides.push_back(std::make_unique<Side>(
      "inproc", bf16,
      [&](transport::PeerListener listener) {
        return std::make_unique<transport::InprocTransport>(
            [&](absl::StatusOr<transport::DispatchFrame> f, const transport::Reply& r) {
              local.OnFrame(std::move(f), r);
            },
            std::move(listener));
      },
      local.View(), "inproc"));
  sides.push_back(std::make_unique<Side>(
      "grpc", bf16,
      [](transport::PeerListener listener) {
        return std::make_unique<transport::GrpcTransport>(2, std::move(listener));
      },
      ViewOf(addresses), "grpc"));
  sides.push_back(std::make_unique<Side>(
      "shm", bf16,
      [](transport::PeerListener listener) {
        transport::ShmTransport::Options options;
        options.incarnation = 2;
        return std::make_unique<transport::ShmTransport>(options, std::move(listener));
      },
      ViewOf(addresses), "shm"));
  for (const size_t rows : {1, 4, 16}) Compare(sides, rows);
  for (const size_t rows : {1, 16, 512}) {
    CountWireBytes("bf16", base::Dtype::kBf16, rows);
    CountWireBytes("int8", base::Dtype::kInt8Row, rows);
  }
  return 0;
}

}  // namespace
}  // namespace expertmesh

int main(int argc, char** argv) {
  if (argc == 5 && std::strcmp(argv[1], "--serve") == 0) {
    return expertmesh::Serve(static_cast<uint32_t>(std::atoi(argv[2])),
                             static_cast<uint32_t>(std::atoi(argv[3])), argv[4]);
  }
  return expertmesh::Main(argv[0]);
}

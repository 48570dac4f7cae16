#include "topomoe/communicator_inproc.hpp"

#include <algorithm>
#include <condition_variable>
#include <cstring>
#include <deque>
#include <exception>
#include <map>
#include <mutex>
#include <optional>
#include <thread>
#include <tuple>

#include "topomoe/black_box.hpp"
#include "topomoe/error.hpp"

namespace topomoe {
namespace {

using Clock = std::chrono::steady_clock;

// What a waiting rank sleeps on.
struct Bell {
  std::mutex mutex;
  std::condition_variable rung;
};

// Transfers of one exchange that are still under way. Guarded by the owner's bell.
struct Pending {
  struct Part {
    int peer;
    std::size_t bytes;
    bool over = false;
    EventPtr copied = nullptr;  // GPU memory: when the lane that copies is through
  };
  std::vector<Part> parts;
  std::size_t remaining = 0;
  EventPtr ready;  // GPU memory: what the lane was told before, a rank's copies to itself among it
  std::string failure;
  int failed_peer = -1;
};

struct Posted {
  const void* source = nullptr;  // of a send
  void* target = nullptr;        // of a receive
  std::size_t bytes = 0;
  int owner = -1;
  std::shared_ptr<Pending> pending;
  std::size_t part = 0;
  std::string step;
  Device* device = nullptr;  // null: host memory
  Lane lane = Lane::inter_node;
  EventPtr ready = nullptr;  // of the owner's lane: what came before the exchange is done
};

const char* memory_of(const Posted& p) { return p.device != nullptr ? "GPU" : "host"; }

struct Hub {
  explicit Hub(int size) : bells(static_cast<std::size_t>(size)), waits(bells.size()) {}

  std::vector<Bell> bells;                                                  // by rank
  std::mutex mutex;                                                         // guards all below
  std::map<std::tuple<int, int, int>, std::deque<Posted>> sends, receives;  // by channel, source, target
  std::vector<Wait> waits;                                                  // of ranks that wait, by rank
  std::optional<Failure> failed;                                            // the first one
  int copying = 0;              // transfers being copied right now; fail() waits for them, as buffers die after it
  std::deque<EventPtr> copies;  // that lanes were told to do, and may not have done
  std::vector<unsigned char> at_barrier = std::vector<unsigned char>(waits.size());
  long barrier_round = 0;
  std::condition_variable barrier_passed, copies_done;

  void finish(const Posted& p, const EventPtr& copied, const std::string& failure) {
    Bell& bell = bells[static_cast<std::size_t>(p.owner)];
    const std::lock_guard lock(bell.mutex);
    --p.pending->remaining;
    p.pending->parts[p.part].over = copied == nullptr;
    p.pending->parts[p.part].copied = copied;
    if (!failure.empty()) p.pending->failure = failure, p.pending->failed_peer = p.pending->parts[p.part].peer;
    bell.rung.notify_all();
  }

  // Both under `mutex`.
  void waits_for(int rank, const std::vector<int>& peers) {
    Wait& w = waits[static_cast<std::size_t>(rank)];
    w.count = static_cast<int>(peers.size());
    std::copy_n(peers.begin(), std::min<std::size_t>(peers.size(), Wait::kMostPeers), w.peers.begin());
  }
  int culprit_for(int rank) const {
    const std::vector<unsigned char> blameless(waits.size());
    std::vector<unsigned char> seen(waits.size());
    std::vector<int> queue(waits.size());
    return find_culprit(rank, waits, blameless, queue, seen);
  }
  // What rank `rank` says of another's failure.
  TransportError told(int rank, const std::vector<int>& peers, const std::string& step, double bytes) const {
    return TransportError({rank, one_of(peers, failed->culprit), failed->culprit, step, bytes,
                           "rank " + std::to_string(failed->rank) + " failed: " + failed->why});
  }
  // The peer to name: the culprit if it is one of them, else the first.
  static int one_of(const std::vector<int>& peers, int culprit) {
    if (std::find(peers.begin(), peers.end(), culprit) != peers.end()) return culprit;
    return peers.empty() ? -1 : peers[0];
  }

  // Queues the transfer, or completes it with its counterpart if that is already here.
  void post(const std::tuple<int, int, int>& key, Posted mine, bool is_send) {
    Posted other;
    {
      const std::lock_guard lock(mutex);
      if (failed) return;  // stays pending; whoever waits for it hears of the failure
      auto& waiting = (is_send ? receives : sends)[key];
      if (waiting.empty()) {
        (is_send ? sends : receives)[key].push_back(std::move(mine));
        return;
      }
      other = std::move(waiting.front());
      waiting.pop_front();
      ++copying;
    }
    const Posted& send = is_send ? mine : other;
    const Posted& receive = is_send ? other : mine;
    std::string failure;
    EventPtr copied;
    if ((send.device == nullptr) != (receive.device == nullptr)) {
      failure = "rank " + std::to_string(send.owner) + " sends " + memory_of(send) + " memory (" + send.step +
                "), rank " + std::to_string(receive.owner) + " expects it in " + memory_of(receive) + " memory (" +
                receive.step + ")";
    } else if (send.bytes != receive.bytes) {
      failure = "rank " + std::to_string(send.owner) + " sends " + std::to_string(send.bytes) + " bytes (" + send.step +
                "), rank " + std::to_string(receive.owner) + " expects " + std::to_string(receive.bytes) + " (" +
                receive.step + ")";
    } else if (mine.device == nullptr) {
      std::memcpy(receive.target, send.source, send.bytes);
    } else {
      try {
        mine.device->wait(mine.lane, other.ready, Clock::now());
        mine.device->copy(mine.lane, receive.target, send.source, send.bytes);
        copied = mine.device->record(mine.lane);
      } catch (const std::exception& e) {
        failure = "rank " + std::to_string(mine.owner) + " cannot copy: " + e.what();
      }
    }
    {
      const std::lock_guard lock(mutex);
      --copying;
      while (!copies.empty() && copies.front()->poll()) copies.pop_front();
      if (copied) copies.push_back(copied);
      copies_done.notify_all();
    }
    finish(send, copied, failure);
    finish(receive, copied, failure);
  }
};

class InprocEvent final : public Event {
 public:
  InprocEvent(std::shared_ptr<Hub> hub, int rank, std::shared_ptr<Pending> pending, std::string step)
      : hub_(std::move(hub)), rank_(rank), pending_(std::move(pending)), step_(std::move(step)) {}

  bool poll() override {
    const std::lock_guard lock(bell().mutex);
    return over();
  }

  void wait(Clock::time_point deadline) override {
    std::unique_lock lock(bell().mutex);
    while (!over()) {
      {
        const std::lock_guard hub_lock(hub_->mutex);
        // fail() rings every bell, so that it is seen at once.
        if (hub_->failed) throw hub_->told(rank_, missing_peers(), step_, missing_bytes());
        hub_->waits_for(rank_, missing_peers());
      }
      // Nobody rings when a lane is through.
      const auto until = pending_->remaining > 0 ? deadline : std::min(deadline, Clock::now() + kLaneLook);
      bell().rung.wait_until(lock, until);
      if (Clock::now() >= deadline && !over()) give_up();
    }
    {
      const std::lock_guard hub_lock(hub_->mutex);
      hub_->waits_for(rank_, {});
    }
    // Either side may be the wrong one: no culprit.
    if (!pending_->failure.empty())
      throw TransportError({rank_, pending_->failed_peer, -1, step_, missing_bytes(), pending_->failure});
  }

 private:
  // A lane's copies are looked after so often. Assumed: as the other waits for GPUs.
  static constexpr auto kLaneLook = std::chrono::microseconds(20);

  // All under the bell's mutex.
  bool over() {
    if (pending_->remaining > 0 || (pending_->ready && !pending_->ready->poll())) return false;
    for (auto& p : pending_->parts) {
      if (p.copied && !p.copied->poll()) return false;
      p.over = true;
      p.copied.reset();
    }
    return true;
  }
  std::vector<int> missing_peers() const {
    std::vector<int> peers;
    for (const auto& p : pending_->parts)
      if (!p.over && std::find(peers.begin(), peers.end(), p.peer) == peers.end()) peers.push_back(p.peer);
    return peers;
  }
  double missing_bytes() const {
    double bytes = 0;
    for (const auto& p : pending_->parts) bytes += p.over ? 0.0 : static_cast<double>(p.bytes);
    return bytes;
  }
  [[noreturn]] void give_up() {
    const std::vector<int> peers = missing_peers();
    std::string list;
    for (const int p : peers) list += (list.empty() ? "" : ", ") + std::to_string(p);
    const std::lock_guard hub_lock(hub_->mutex);
    if (hub_->failed) throw hub_->told(rank_, peers, step_, missing_bytes());
    const int culprit = hub_->culprit_for(rank_);
    const auto missing = std::count_if(pending_->parts.begin(), pending_->parts.end(), [](auto& p) { return !p.over; });
    throw TransportError({rank_, Hub::one_of(peers, culprit), culprit, step_, missing_bytes(),
                          std::to_string(missing) + " transfers still missing at the deadline, with " + list});
  }

  Bell& bell() { return hub_->bells[static_cast<std::size_t>(rank_)]; }
  std::shared_ptr<Hub> hub_;
  int rank_;
  std::shared_ptr<Pending> pending_;
  std::string step_;
};

class InprocCommunicator final : public Communicator {
 public:
  InprocCommunicator(std::shared_ptr<Hub> hub, int rank, std::chrono::milliseconds barrier_deadline)
      : hub_(std::move(hub)), rank_(rank), barrier_deadline_(barrier_deadline) {}

  void use(Device& device) { device_ = &device; }

  int rank() const override { return rank_; }
  int size() const override { return static_cast<int>(hub_->bells.size()); }
  std::string refuses(const Device& device) const override {
    if (device.memory_space() == MemorySpace::host || device_ == &device) return {};
    return std::string("the communicator was told ") + (device_ == nullptr ? "no GPU" : "another one") +
           ": call use_device(), in C topomoe_inproc_use_device()";
  }

  ChannelId open_channel(std::span<const int> members) override {
    channels_.emplace_back(members.begin(), members.end());
    return static_cast<ChannelId>(channels_.size()) - 1;
  }

  EventPtr exchange(ChannelId channel, std::span<const Outgoing> sends, std::span<const Incoming> receives,
                    const ExchangeInfo& info) override {
    Device* const gpu = info.memory == MemorySpace::host ? nullptr : device_;
    if (info.memory != MemorySpace::host && gpu == nullptr)
      throw InvalidInput("exchange " + std::string(info.step), "GPU memory",
                         "which GPU is not known: tell the communicator by use_device()");
    const EventPtr ready = gpu != nullptr ? gpu->record(info.lane) : nullptr;
    const auto& members = channels_.at(static_cast<std::size_t>(channel));
    auto pending = std::make_shared<Pending>();
    const auto world_rank = [&](int peer) { return members.at(static_cast<std::size_t>(peer)); };
    for (const auto& r : receives)
      if (r.bytes > 0) pending->parts.push_back({world_rank(r.peer), r.bytes});
    for (const auto& s : sends)
      if (s.bytes > 0) pending->parts.push_back({world_rank(s.peer), s.bytes});
    pending->remaining = pending->parts.size();
    pending->ready = ready;
    auto event = std::make_shared<InprocEvent>(hub_, rank_, pending, std::string(info.step));
    std::size_t part = 0;
    for (const auto& r : receives)
      if (r.bytes > 0)
        hub_->post({channel, world_rank(r.peer), rank_},
                   {nullptr, r.data, r.bytes, rank_, pending, part++, std::string(info.step), gpu, info.lane, ready},
                   false);
    for (const auto& s : sends)
      if (s.bytes > 0)
        hub_->post({channel, rank_, world_rank(s.peer)},
                   {s.data, nullptr, s.bytes, rank_, pending, part++, std::string(info.step), gpu, info.lane, ready},
                   true);
    return event;
  }

  void progress() override {}

  void barrier() override {
    std::unique_lock lock(hub_->mutex);
    const long round = hub_->barrier_round;
    hub_->at_barrier[static_cast<std::size_t>(rank_)] = 1;
    if (absent().empty()) {
      std::fill(hub_->at_barrier.begin(), hub_->at_barrier.end(), static_cast<unsigned char>(0));
      ++hub_->barrier_round;
      hub_->barrier_passed.notify_all();
      return;
    }
    std::vector<int> others;
    for (int r = 0; r < size(); ++r)
      if (r != rank_) others.push_back(r);
    hub_->waits_for(rank_, others);
    hub_->barrier_passed.wait_for(lock, barrier_deadline_,
                                  [&] { return hub_->barrier_round != round || hub_->failed; });
    if (hub_->barrier_round == round) {
      if (hub_->failed) throw hub_->told(rank_, absent(), "barrier", 0);
      const int culprit = hub_->culprit_for(rank_);
      throw TransportError(
          {rank_, Hub::one_of(absent(), culprit), culprit, "barrier", 0, "not all ranks came before the deadline"});
    }
    hub_->waits_for(rank_, {});
  }

  void fail(const Failure& failure) noexcept override {
    {
      std::unique_lock lock(hub_->mutex);
      if (!hub_->failed) hub_->failed = failure;
      hub_->barrier_passed.notify_all();
      hub_->copies_done.wait(lock, [&] { return hub_->copying == 0; });
    }
    wait_for_lanes();
    for (Bell& bell : hub_->bells) {
      const std::lock_guard lock(bell.mutex);
      bell.rung.notify_all();
    }
  }

 private:
  // Of the barrier under way; under the hub's mutex.
  std::vector<int> absent() const {
    std::vector<int> ranks;
    for (int r = 0; r < size(); ++r)
      if (hub_->at_barrier[static_cast<std::size_t>(r)] == 0) ranks.push_back(r);
    return ranks;
  }

  // Copies on GPUs use buffers that die after a failure. A GPU that hangs is not waited for for ever.
  void wait_for_lanes() noexcept {
    try {
      std::unique_lock lock(hub_->mutex);
      const auto copies = hub_->copies;
      lock.unlock();
      const auto end = Clock::now() + std::chrono::seconds(5);
      for (const EventPtr& copy : copies)
        while (!copy->poll() && Clock::now() < end) std::this_thread::sleep_for(std::chrono::microseconds(20));
    } catch (const std::exception&) {  // the GPU is what failed
    }
  }

  std::shared_ptr<Hub> hub_;
  int rank_;
  std::chrono::milliseconds barrier_deadline_;
  Device* device_ = nullptr;
  std::vector<std::vector<int>> channels_;
};

}  // namespace

std::vector<std::unique_ptr<Communicator>> make_inproc_world(int size, std::chrono::milliseconds barrier_deadline) {
  if (size < 1) throw InvalidInput("ranks", std::to_string(size), "at least 1");
  auto hub = std::make_shared<Hub>(size);
  std::vector<std::unique_ptr<Communicator>> world;
  for (int rank = 0; rank < size; ++rank)
    world.push_back(std::make_unique<InprocCommunicator>(hub, rank, barrier_deadline));
  return world;
}

void use_device(Communicator& inproc, Device& device) {
  auto* const ours = dynamic_cast<InprocCommunicator*>(&inproc);
  if (ours == nullptr)
    throw InvalidInput("communicator", "not inproc's", "only ranks that are threads are told their device afterwards");
  ours->use(device);
}

void run_inproc(int size, const std::function<void(Communicator&)>& body) {
  auto world = make_inproc_world(size);
  std::mutex mutex;
  std::exception_ptr first;
  std::vector<std::thread> threads;
  for (auto& communicator : world) {
    threads.emplace_back([&, &c = *communicator] {
      try {
        body(c);
      } catch (const std::exception& e) {
        {
          const std::lock_guard lock(mutex);
          if (!first) first = std::current_exception();
        }
        c.fail(failure_of(e, c.rank()));
      }
    });
  }
  for (auto& t : threads) t.join();
  if (first) std::rethrow_exception(first);
}

}  // namespace topomoe

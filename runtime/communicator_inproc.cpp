#include "runtime/communicator_inproc.hpp"

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

#include "runtime/black_box.hpp"
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
  };
  std::vector<Part> parts;
  std::size_t remaining = 0;
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
};

struct Hub {
  explicit Hub(int size) : bells(static_cast<std::size_t>(size)), waits(bells.size()) {}

  std::vector<Bell> bells;                                                  // by rank
  std::mutex mutex;                                                         // guards all below
  std::map<std::tuple<int, int, int>, std::deque<Posted>> sends, receives;  // by channel, source, target
  std::vector<Wait> waits;                                                  // of ranks that wait, by rank
  std::optional<Failure> failed;                                            // the first one
  int copying = 0;  // transfers being copied right now; fail() waits for them, as buffers die after it
  int at_barrier = 0;
  long barrier_round = 0;
  std::condition_variable barrier_passed, copies_done;

  void finish(const Posted& p, const std::string& failure = "") {
    Bell& bell = bells[static_cast<std::size_t>(p.owner)];
    const std::lock_guard lock(bell.mutex);
    --p.pending->remaining;
    p.pending->parts[p.part].over = true;
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
  TransportError told(int rank, int peer, const std::string& step, double bytes) const {
    return TransportError(
        {rank, peer, failed->culprit, step, bytes, "rank " + std::to_string(failed->rank) + " failed: " + failed->why});
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
    if (send.bytes != receive.bytes) {
      failure = "rank " + std::to_string(send.owner) + " sends " + std::to_string(send.bytes) + " bytes (" + send.step +
                "), rank " + std::to_string(receive.owner) + " expects " + std::to_string(receive.bytes) + " (" +
                receive.step + ")";
    } else {
      std::memcpy(receive.target, send.source, send.bytes);
    }
    {
      const std::lock_guard lock(mutex);
      --copying;
      copies_done.notify_all();
    }
    finish(send, failure);
    finish(receive, failure);
  }
};

class InprocEvent final : public Event {
 public:
  InprocEvent(std::shared_ptr<Hub> hub, int rank, std::shared_ptr<Pending> pending, std::string step)
      : hub_(std::move(hub)), rank_(rank), pending_(std::move(pending)), step_(std::move(step)) {}

  bool poll() override {
    const std::lock_guard lock(bell().mutex);
    return pending_->remaining == 0;
  }

  void wait(Clock::time_point deadline) override {
    std::unique_lock lock(bell().mutex);
    while (pending_->remaining > 0) {
      {
        const std::lock_guard hub_lock(hub_->mutex);
        // fail() rings every bell, so that it is seen at once.
        if (hub_->failed) throw hub_->told(rank_, only_peer(), step_, missing_bytes());
        hub_->waits_for(rank_, missing_peers());
      }
      if (bell().rung.wait_until(lock, deadline) == std::cv_status::timeout && pending_->remaining > 0) give_up();
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
  // All under the bell's mutex.
  std::vector<int> missing_peers() const {
    std::vector<int> peers;
    for (const auto& p : pending_->parts)
      if (!p.over && std::find(peers.begin(), peers.end(), p.peer) == peers.end()) peers.push_back(p.peer);
    return peers;
  }
  int only_peer() const {
    const std::vector<int> peers = missing_peers();
    return peers.size() == 1 ? peers[0] : -1;
  }
  double missing_bytes() const {
    double bytes = 0;
    for (const auto& p : pending_->parts) bytes += p.over ? 0.0 : static_cast<double>(p.bytes);
    return bytes;
  }
  [[noreturn]] void give_up() {
    std::string list;
    for (const int p : missing_peers()) list += (list.empty() ? "" : ", ") + std::to_string(p);
    const std::lock_guard hub_lock(hub_->mutex);
    if (hub_->failed) throw hub_->told(rank_, only_peer(), step_, missing_bytes());
    throw TransportError(
        {rank_, only_peer(), hub_->culprit_for(rank_), step_, missing_bytes(),
         std::to_string(pending_->remaining) + " transfers still missing at the deadline, with " + list});
  }

  Bell& bell() { return hub_->bells[static_cast<std::size_t>(rank_)]; }
  std::shared_ptr<Hub> hub_;
  int rank_;
  std::shared_ptr<Pending> pending_;
  std::string step_;
};

class InprocCommunicator final : public Communicator {
 public:
  InprocCommunicator(std::shared_ptr<Hub> hub, int rank) : hub_(std::move(hub)), rank_(rank) {}

  int rank() const override { return rank_; }
  int size() const override { return static_cast<int>(hub_->bells.size()); }

  ChannelId open_channel(std::span<const int> members) override {
    channels_.emplace_back(members.begin(), members.end());
    return static_cast<ChannelId>(channels_.size()) - 1;
  }

  EventPtr exchange(ChannelId channel, std::span<const Outgoing> sends, std::span<const Incoming> receives,
                    const ExchangeInfo& info) override {
    if (info.memory != MemorySpace::host)
      throw InvalidInput("exchange " + std::string(info.step), "GPU memory",
                         "ranks that are threads move host memory: take the cpu device");
    const auto& members = channels_.at(static_cast<std::size_t>(channel));
    auto pending = std::make_shared<Pending>();
    const auto world_rank = [&](int peer) { return members.at(static_cast<std::size_t>(peer)); };
    for (const auto& r : receives)
      if (r.bytes > 0) pending->parts.push_back({world_rank(r.peer), r.bytes});
    for (const auto& s : sends)
      if (s.bytes > 0) pending->parts.push_back({world_rank(s.peer), s.bytes});
    pending->remaining = pending->parts.size();
    auto event = std::make_shared<InprocEvent>(hub_, rank_, pending, std::string(info.step));
    std::size_t part = 0;
    for (const auto& r : receives)
      if (r.bytes > 0)
        hub_->post({channel, world_rank(r.peer), rank_},
                   {nullptr, r.data, r.bytes, rank_, pending, part++, std::string(info.step)}, false);
    for (const auto& s : sends)
      if (s.bytes > 0)
        hub_->post({channel, rank_, world_rank(s.peer)},
                   {s.data, nullptr, s.bytes, rank_, pending, part++, std::string(info.step)}, true);
    return event;
  }

  void progress() override {}

  void barrier() override {
    std::unique_lock lock(hub_->mutex);
    const long round = hub_->barrier_round;
    if (++hub_->at_barrier == size()) {
      hub_->at_barrier = 0;
      ++hub_->barrier_round;
      hub_->barrier_passed.notify_all();
      return;
    }
    std::vector<int> others;
    for (int r = 0; r < size(); ++r)
      if (r != rank_) others.push_back(r);
    hub_->waits_for(rank_, others);
    hub_->barrier_passed.wait(lock, [&] { return hub_->barrier_round != round || hub_->failed; });
    if (hub_->barrier_round == round) throw hub_->told(rank_, -1, "barrier", 0);
    hub_->waits_for(rank_, {});
  }

  void fail(const Failure& failure) noexcept override {
    {
      std::unique_lock lock(hub_->mutex);
      if (!hub_->failed) hub_->failed = failure;
      hub_->barrier_passed.notify_all();
      hub_->copies_done.wait(lock, [&] { return hub_->copying == 0; });
    }
    for (Bell& bell : hub_->bells) {
      const std::lock_guard lock(bell.mutex);
      bell.rung.notify_all();
    }
  }

 private:
  std::shared_ptr<Hub> hub_;
  int rank_;
  std::vector<std::vector<int>> channels_;
};

}  // namespace

std::vector<std::unique_ptr<Communicator>> make_inproc_world(int size) {
  if (size < 1) throw InvalidInput("ranks", std::to_string(size), "at least 1");
  auto hub = std::make_shared<Hub>(size);
  std::vector<std::unique_ptr<Communicator>> world;
  for (int rank = 0; rank < size; ++rank) world.push_back(std::make_unique<InprocCommunicator>(hub, rank));
  return world;
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

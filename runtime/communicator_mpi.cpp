#include "runtime/communicator_mpi.hpp"

// Neither library's deprecated C++ bindings.
#define OMPI_SKIP_MPICXX 1
#define MPICH_SKIP_MPICXX 1
#include <mpi.h>

#include <algorithm>
#include <atomic>
#include <deque>
#include <numeric>
#include <optional>
#include <random>
#include <thread>
#include <vector>

#include "runtime/distress.hpp"
#include "topomoe/error.hpp"

namespace topomoe {
namespace {

using Clock = std::chrono::steady_clock;

constexpr int kTag = 0;  // channels have communicators of their own

// How long a rank that gives up waits for the others to say that they live. Assumed: ranks answer from every wait,
// and from kernels every millisecond; what takes longer is a core that several ranks share.
constexpr auto kPatience = std::chrono::milliseconds(500);
// Between two looks at the mail while waiting. Assumed: next to a deadline nothing, and one system call.
constexpr auto kLook = std::chrono::milliseconds(5);

// MPI is one a process, and so is whether it can still be finalized.
std::atomic<bool> left_behind{false};

std::string text_of(int code) {
  char text[MPI_MAX_ERROR_STRING] = {};
  int length = 0;
  MPI_Error_string(code, text, &length);
  return {text, static_cast<std::size_t>(length)};
}

void try_mpi(int code, int rank, const char* what) {
  if (code != MPI_SUCCESS) throw TransportError(rank, -1, what, 0, text_of(code));
}

// Between two polls of a wait. With more ranks than cores the peer we wait for may need this very core, so
// yield from the start, and sleep once it is clear that the wait is no short one.
class Pause {
 public:
  void operator()() {
    if (++polls_ < 2000) {
      std::this_thread::yield();
    } else {
      std::this_thread::sleep_for(std::chrono::microseconds(50));
    }
  }

 private:
  int polls_ = 0;
};

// What the waits of a communicator share: the black box, the mail, and the failure that ended it all.
class Watch {
 public:
  Watch(int rank, int size, BlackBox* box) : box_(box != nullptr ? *box : own_), distress_(rank, size, box_) {
    box_.rank = rank;
    for (int r = 0; r < size; ++r)
      if (r != rank) others_.push_back(r);
  }
  Watch(const Watch&) = delete;
  Watch& operator=(const Watch&) = delete;
  ~Watch() {
    box_.distress = nullptr;
    if (!failure_) box_.wait_ends();
  }

  int rank() const { return box_.rank; }
  std::span<const int> others() const { return others_; }
  BlackBox& box() { return box_; }

  // Collective.
  void connect(MPI_Comm comm) {
    std::vector<DistressAddress> all(others_.size() + 1);
    const DistressAddress mine = distress_.mine();
    std::uint64_t job = (std::uint64_t{std::random_device()()} << 32) + std::random_device()();
    try_mpi(MPI_Allgather(&mine, sizeof mine, MPI_BYTE, all.data(), sizeof mine, MPI_BYTE, comm), rank(), "addresses");
    try_mpi(MPI_Bcast(&job, sizeof job, MPI_BYTE, 0, comm), rank(), "addresses");
    distress_.connect(all, job);
    box_.distress = &distress_;
  }

  // Answers the others. The culprit that one of them named, once that happened.
  std::optional<int> hear() {
    const auto now = Clock::now();
    if (now < next_look_) return std::nullopt;
    next_look_ = now + kLook;
    const int culprit = distress_.look();
    return culprit < 0 ? std::nullopt : std::optional(culprit);
  }

  int ask() { return distress_.ask(kPatience, Blame::the_busy_too); }

  // For a wait that may end at `deadline`: the others are asked a little earlier, so that their answers are here by
  // then.
  void ask_before(Clock::time_point deadline) {
    asked_for_ = deadline;
    asking_ = false;
  }
  void ask_if_due(Clock::time_point now) {
    if (asking_ || now < asked_for_ - kPatience) return;
    asking_ = true;
    distress_.start_asking();
  }
  int conclude() { return asking_ ? distress_.conclude(kPatience, Blame::the_busy_too) : ask(); }

  void fail(const Failure& f) noexcept {
    if (failure_) return;
    left_behind = true;
    try {
      failure_ = f;
    } catch (...) {  // no memory for the text
      failure_.emplace();
    }
    distress_.tell(f.culprit);
  }
  void check() const {
    if (failure_) throw TransportError(*failure_);
  }
  bool failed() const { return failure_.has_value(); }

 private:
  BlackBox own_;
  BlackBox& box_;
  Distress distress_;
  std::vector<int> others_;
  Clock::time_point next_look_{}, asked_for_{};
  bool asking_ = false;
  std::optional<Failure> failure_;
};

constexpr const char* kTold = "another rank named the culprit";

// The transfers of one exchange. Shared by its event and the communicator, which polls it for progress.
class Flight {
 public:
  Flight(Watch& watch, std::string step) : watch_(watch), step_(std::move(step)) {}

  // A slot for the request of a transfer that is about to start.
  MPI_Request* add(int peer, std::size_t bytes, bool receive) {
    parts_.push_back({peer, bytes, receive});
    requests_.push_back(MPI_REQUEST_NULL);
    return &requests_.back();
  }
  void reserve(std::size_t parts) { requests_.reserve(parts), parts_.reserve(parts); }

  bool done() const { return done_; }

  // True once all is over, well or not. Drives all of MPI, not only this exchange.
  bool test() {
    if (done_) return true;
    statuses_.resize(requests_.size());
    int over = 0;
    const int code = MPI_Testall(static_cast<int>(requests_.size()), requests_.data(), &over, statuses_.data());
    if (code == MPI_SUCCESS && over == 0) return false;
    done_ = true;
    for (std::size_t i = 0; i < parts_.size() && failure_.empty(); ++i) {
      const Part& p = parts_[i];
      int count = 0;
      if (p.receive) MPI_Get_count(&statuses_[i], MPI_BYTE, &count);
      if (code == MPI_ERR_IN_STATUS && statuses_[i].MPI_ERROR != MPI_SUCCESS &&
          statuses_[i].MPI_ERROR != MPI_ERR_PENDING) {
        fail(p, text_of(statuses_[i].MPI_ERROR));
        peer_broke_ = statuses_[i].MPI_ERROR != MPI_ERR_TRUNCATE;  // too long a message is no death
      } else if (code == MPI_SUCCESS && p.receive && static_cast<std::size_t>(count) != p.bytes) {
        fail(p, "the peer sends " + std::to_string(count) + " bytes, expected are " + std::to_string(p.bytes));
      }
    }
    if (code != MPI_SUCCESS && failure_.empty()) failure_ = text_of(code);
    return true;
  }

  void wait(Clock::time_point deadline) {
    watch_.check();
    if (!test()) {
      record();
      watch_.ask_before(deadline);
      auto next_record = Clock::now() + kRecord;
      for (Pause pause; !test(); pause()) {
        const auto now = Clock::now();
        if (now > deadline) throw_missing(std::nullopt);
        if (now > next_record) {
          record();
          watch_.ask_if_due(now);
          next_record = now + kRecord;
        }
        if (const auto culprit = watch_.hear()) throw_missing(culprit);
      }
      if (failure_.empty()) watch_.box().wait_ends();
    }
    if (failure_.empty()) return;
    throw TransportError({watch_.rank(), failed_.peer, peer_broke_ ? blame(failed_.peer) : -1, step_,
                          static_cast<double>(failed_.bytes), failure_});
  }

 private:
  struct Part {
    int peer = -1;  // world rank
    std::size_t bytes = 0;
    bool receive = false;
  };

  void fail(const Part& p, const std::string& why) {
    failed_ = p;
    failure_ = why;
  }

  // Assumed: fresh enough for last words; a test a transfer that often costs nothing.
  static constexpr auto kRecord = std::chrono::milliseconds(20);

  // Transfers under way, those of one peer in one direction added up.
  std::vector<Part> missing() {
    std::vector<Part> out;
    for (std::size_t i = 0; i < parts_.size(); ++i) {
      int over = 0;
      MPI_Request_get_status(requests_[i], &over, MPI_STATUS_IGNORE);
      if (over != 0) continue;
      const Part& p = parts_[i];
      if (out.empty() || out.back().peer != p.peer || out.back().receive != p.receive) {
        out.push_back(p);
      } else {
        out.back().bytes += p.bytes;
      }
    }
    return out;
  }

  // Into the black box.
  std::vector<Part> record() {
    const std::vector<Part> parts = missing();
    std::vector<int> peers;
    double bytes = 0;
    for (const Part& p : parts) {
      if (std::find(peers.begin(), peers.end(), p.peer) == peers.end()) peers.push_back(p.peer);
      bytes += static_cast<double>(p.bytes);
    }
    watch_.box().wait_begins(step_, peers, bytes);
    return parts;
  }

  // Who is to blame where the direct peer is known: it, unless the others know better.
  int blame(int peer) {
    watch_.box().wait_begins(step_, {&peer, 1}, static_cast<double>(failed_.bytes));
    const int culprit = watch_.ask();
    return culprit >= 0 ? culprit : peer;
  }

  [[noreturn]] void throw_missing(std::optional<int> told) {
    const std::vector<Part> parts = record();
    std::string list;
    double bytes = 0;
    bool one_peer = !parts.empty();
    for (const Part& p : parts) {
      list += (list.empty() ? "" : ", ") + std::to_string(p.bytes) + (p.receive ? " bytes from " : " bytes to ") +
              std::to_string(p.peer);
      bytes += static_cast<double>(p.bytes);
      one_peer = one_peer && p.peer == parts[0].peer;
    }
    throw TransportError({watch_.rank(), one_peer ? parts[0].peer : -1, told ? *told : watch_.conclude(), step_, bytes,
                          (told ? kTold + std::string("; missing: ") : "still missing at the deadline: ") + list});
  }

  Watch& watch_;
  std::string step_;
  std::vector<MPI_Request> requests_;
  std::vector<MPI_Status> statuses_;
  std::vector<Part> parts_;
  bool done_ = false;
  Part failed_;
  std::string failure_;
  bool peer_broke_ = false;
};

class MpiEvent final : public Event {
 public:
  explicit MpiEvent(std::shared_ptr<Flight> flight) : flight_(std::move(flight)) {}
  bool poll() override { return flight_->test(); }
  void wait(Clock::time_point deadline) override { flight_->wait(deadline); }

 private:
  std::shared_ptr<Flight> flight_;
};

class MpiCommunicator final : public Communicator {
 public:
  MpiCommunicator(MPI_Comm callers, const MpiOptions& options) : options_(options) {
    MPI_Comm_rank(callers, &rank_);
    MPI_Comm_size(callers, &size_);
    // Not MPI_Comm_dup, which would carry over the caller's attributes.
    try_mpi(MPI_Comm_split(callers, 0, rank_, &world_), rank_, "split the caller's communicator");
    MPI_Comm_set_errhandler(world_, MPI_ERRORS_RETURN);
    watch_.emplace(rank_, size_, options.black_box);
    watch_->connect(world_);
  }
  MpiCommunicator(const MpiCommunicator&) = delete;
  MpiCommunicator& operator=(const MpiCommunicator&) = delete;
  ~MpiCommunicator() override {
    int finalized = 0;
    MPI_Finalized(&finalized);
    if (finalized != 0 || watch_->failed()) return;  // freeing is collective
    for (Channel& c : channels_) MPI_Comm_free(&c.comm);
    MPI_Comm_free(&world_);
  }

  int rank() const override { return rank_; }
  int size() const override { return size_; }

  ChannelId open_channel(std::span<const int> members) override {
    watch_->check();
    Channel channel{MPI_COMM_NULL, {members.begin(), members.end()}};
    const auto me = std::find(members.begin(), members.end(), rank_);
    const bool inside = me != members.end();
    watch_->box().wait_begins("open channel", watch_->others(), 0);
    // The channels of one call partition the world, so that its smallest rank names a channel.
    const int color = inside ? *std::min_element(members.begin(), members.end()) : MPI_UNDEFINED;
    try_mpi(MPI_Comm_split(world_, color, static_cast<int>(me - members.begin()), &channel.comm), rank_,
            "open channel");
    // Ranks that disagree about who is in a channel would send to the wrong one, in silence. All refuse together.
    int fits = inside && has_members(channel) ? 1 : 0;
    try_mpi(MPI_Allreduce(MPI_IN_PLACE, &fits, 1, MPI_INT, MPI_LAND, world_), rank_, "open channel");
    watch_->box().wait_ends();
    if (fits == 0) {
      if (channel.comm != MPI_COMM_NULL) MPI_Comm_free(&channel.comm);
      throw InvalidInput("members", std::to_string(members.size()) + " ranks",
                         inside ? "ranks disagree about who is in the channels, and in which order"
                                : "must hold rank " + std::to_string(rank_));
    }
    channels_.push_back(std::move(channel));
    return static_cast<ChannelId>(channels_.size()) - 1;
  }

  EventPtr exchange(ChannelId id, std::span<const Outgoing> sends, std::span<const Incoming> receives,
                    const ExchangeInfo& info) override {
    watch_->check();
    const Channel& channel = channels_.at(static_cast<std::size_t>(id));
    TOPOMOE_ASSERT(info.memory == MemorySpace::host);
    auto flight = std::make_shared<Flight>(*watch_, std::string(info.step));
    std::size_t parts = 0;
    for (const Outgoing& s : sends) parts += parts_of(s.bytes);
    for (const Incoming& r : receives) parts += parts_of(r.bytes);
    flight->reserve(parts);
    // Receives first: what arrives then finds its place, and is not buffered.
    for (const Incoming& r : receives)
      for_each_part(r.bytes, [&](std::size_t offset, int bytes) {
        return MPI_Irecv(static_cast<std::byte*>(r.data) + offset, bytes, MPI_BYTE, r.peer, kTag, channel.comm,
                         flight->add(world_rank(channel, r.peer), static_cast<std::size_t>(bytes), true));
      });
    for (const Outgoing& s : sends)
      for_each_part(s.bytes, [&](std::size_t offset, int bytes) {
        return MPI_Isend(static_cast<const std::byte*>(s.data) + offset, bytes, MPI_BYTE, s.peer, kTag, channel.comm,
                         flight->add(world_rank(channel, s.peer), static_cast<std::size_t>(bytes), false));
      });
    std::erase_if(live_, [](const auto& f) { return f->done(); });
    live_.push_back(flight);
    return std::make_shared<MpiEvent>(std::move(flight));
  }

  // MPI moves everything inside any test, so that the oldest is enough.
  void progress() override {
    while (!live_.empty() && live_.front()->test()) live_.pop_front();
    (void)watch_->hear();  // what it is told, the next wait says
  }

  void barrier() override {
    watch_->check();
    MPI_Request request = MPI_REQUEST_NULL;
    try_mpi(MPI_Ibarrier(world_, &request), rank_, "barrier");
    watch_->box().wait_begins("barrier", watch_->others(), 0);
    const auto deadline = Clock::now() + options_.barrier_deadline;
    watch_->ask_before(deadline);
    for (Pause pause;; pause()) {
      int over = 0;
      try_mpi(MPI_Test(&request, &over, MPI_STATUS_IGNORE), rank_, "barrier");
      if (over != 0) break;
      if (const auto culprit = watch_->hear()) throw TransportError({rank_, -1, *culprit, "barrier", 0, kTold});
      const auto now = Clock::now();
      watch_->ask_if_due(now);
      if (now > deadline)
        throw TransportError({rank_, -1, watch_->conclude(), "barrier", 0, "not all ranks came before the deadline"});
    }
    watch_->box().wait_ends();
  }

  void fail(const Failure& failure) noexcept override { watch_->fail(failure); }

 private:
  struct Channel {
    MPI_Comm comm;
    std::vector<int> members;
  };

  int world_rank(const Channel& c, int peer) const { return c.members.at(static_cast<std::size_t>(peer)); }

  std::size_t parts_of(std::size_t bytes) const {
    return (bytes + options_.largest_message_bytes - 1) / options_.largest_message_bytes;
  }
  template <class Start>
  void for_each_part(std::size_t bytes, const Start& start) {
    for (std::size_t offset = 0; offset < bytes; offset += options_.largest_message_bytes)
      try_mpi(start(offset, static_cast<int>(std::min(bytes - offset, options_.largest_message_bytes))), rank_,
              "start a transfer");
  }

  // True if the split gave the ranks that were asked for, in their order.
  bool has_members(const Channel& c) const {
    int size = 0;
    MPI_Comm_size(c.comm, &size);
    if (size != static_cast<int>(c.members.size())) return false;
    std::vector<int> index(c.members.size()), world(c.members.size());
    std::iota(index.begin(), index.end(), 0);
    MPI_Group inside = MPI_GROUP_NULL, all = MPI_GROUP_NULL;
    MPI_Comm_group(c.comm, &inside);
    MPI_Comm_group(world_, &all);
    MPI_Group_translate_ranks(inside, size, index.data(), all, world.data());
    MPI_Group_free(&inside);
    MPI_Group_free(&all);
    return world == c.members;
  }

  MpiOptions options_;
  int rank_ = 0, size_ = 1;
  MPI_Comm world_ = MPI_COMM_NULL;
  std::optional<Watch> watch_;
  std::vector<Channel> channels_;
  std::deque<std::shared_ptr<Flight>> live_;  // oldest first
};

bool is_up() {
  int initialized = 0, finalized = 0;
  MPI_Initialized(&initialized);
  MPI_Finalized(&finalized);
  return initialized != 0 && finalized == 0;
}

}  // namespace

MpiSession::MpiSession() {
  int initialized = 0;
  MPI_Initialized(&initialized);
  if (initialized != 0) return;
  int provided = 0;
  if (MPI_Init_thread(nullptr, nullptr, MPI_THREAD_FUNNELED, &provided) != MPI_SUCCESS ||
      provided < MPI_THREAD_FUNNELED)
    throw MissingEnvironment("mpi: " + mpi_description() + " gives no MPI_THREAD_FUNNELED");
  finalize_ = true;
}

MpiSession::~MpiSession() {
  if (finalize_ && is_up() && !left_behind) MPI_Finalize();
}

std::unique_ptr<Communicator> make_mpi_communicator(const void* mpi_comm, const MpiOptions& options) {
  if (!is_up()) throw InvalidInput("MPI_Comm", "MPI is not initialised", "make an MpiSession, or call MPI_Init, first");
  if (options.largest_message_bytes < 1 || options.largest_message_bytes > std::size_t{1} << 30)
    throw InvalidInput("largest_message_bytes", std::to_string(options.largest_message_bytes), "1 to 2^30");
  return std::make_unique<MpiCommunicator>(
      mpi_comm != nullptr ? *static_cast<const MPI_Comm*>(mpi_comm) : MPI_COMM_WORLD, options);
}

void end_mpi_job() noexcept {
  if (is_up()) MPI_Abort(MPI_COMM_WORLD, 1);
}

std::string mpi_description() {
  char text[MPI_MAX_LIBRARY_VERSION_STRING] = {};
  int length = 0;
  MPI_Get_library_version(text, &length);
  const std::string all(text, static_cast<std::size_t>(length));
  return all.substr(0, all.find_first_of(",\n"));  // packager and build follow
}

}  // namespace topomoe

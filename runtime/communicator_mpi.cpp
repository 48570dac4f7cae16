#include "topomoe/communicator_mpi.hpp"

#include <algorithm>
#include <deque>
#include <optional>
#include <vector>

#include "runtime/channel_agreement.hpp"
#include "runtime/mpi_flight.hpp"
#include "runtime/mpi_watch.hpp"
#include "topomoe/error.hpp"

namespace topomoe {
namespace {

using mpi::Clock, mpi::Flight, mpi::InsideMpi, mpi::Pause, mpi::try_mpi, mpi::Watch;

// A channel is a tag of one communicator, and MPI promises no larger one (MPI 3.1, 8.1.2).
constexpr int kMostChannels = 32768;
constexpr const char* kHostMemory = "MPI moves host memory here: take the cpu device, or NCCL";

class MpiEvent final : public Event {
 public:
  explicit MpiEvent(std::shared_ptr<Flight> flight) : flight_(std::move(flight)) {}
  bool poll() override { return flight_->poll(); }
  void wait(Clock::time_point deadline) override { flight_->wait(deadline); }

 private:
  std::shared_ptr<Flight> flight_;
};

class MpiCommunicator final : public Communicator {
 public:
  MpiCommunicator(MPI_Comm callers, const MpiOptions& options) : options_(options) {
    MPI_Comm_rank(callers, &rank_);
    MPI_Comm_size(callers, &size_);
    if (options.rank >= 0 && options.rank < size_) rank_ = options.rank;
    watch_.emplace(rank_, size_, options.black_box, options.barrier_deadline);
    try {
      split_from(callers);
    } catch (const InvalidInput&) {
      throw;  // alike on all ranks, and nothing is under way
    } catch (...) {
      mpi::leave_behind();  // what was started cannot be taken back
      throw;
    }
  }
  MpiCommunicator(const MpiCommunicator&) = delete;
  MpiCommunicator& operator=(const MpiCommunicator&) = delete;
  ~MpiCommunicator() override {
    int finalized = 0;
    MPI_Finalized(&finalized);
    if (finalized != 0 || watch_->failed()) return;  // freeing is collective
    MPI_Comm_free(&world_);
  }

  int rank() const override { return rank_; }
  int size() const override { return size_; }
  std::string refuses(const Device& device) const override {
    return device.memory_space() == MemorySpace::host ? "" : kHostMemory;
  }

  ChannelId open_channel(std::span<const int> members) override {
    watch_->check();
    const ChannelId id = static_cast<ChannelId>(channels_.size());
    if (id >= kMostChannels)
      throw InvalidInput("channels", std::to_string(id + 1), "at most " + std::to_string(kMostChannels));
    require_agreement(watch_->sum(world_, agreement_share(members, rank_), "open channel"), members, rank_);
    channels_.emplace_back(members.begin(), members.end());
    return id;
  }

  EventPtr exchange(ChannelId id, std::span<const Outgoing> sends, std::span<const Incoming> receives,
                    const ExchangeInfo& info) override {
    watch_->check();
    const std::vector<int>& members = channels_.at(static_cast<std::size_t>(id));
    const auto world_rank = [&](int peer) { return members.at(static_cast<std::size_t>(peer)); };
    if (info.memory != MemorySpace::host)
      throw InvalidInput("exchange " + std::string(info.step), "GPU memory", kHostMemory);
    auto flight = std::make_shared<Flight>(*watch_, std::string(info.step));
    std::size_t parts = 0;
    double total = 0;
    for (const Outgoing& s : sends) parts += parts_of(s.bytes), total += static_cast<double>(s.bytes);
    for (const Incoming& r : receives) parts += parts_of(r.bytes), total += static_cast<double>(r.bytes);
    flight->reserve(parts);
    const InsideMpi in_mpi(*watch_, info.step, members, total);
    // Receives first: what arrives then finds its place, and is not buffered.
    for (const Incoming& r : receives)
      for_each_part(r.bytes, [&](std::size_t offset, int bytes) {
        return MPI_Irecv(static_cast<std::byte*>(r.data) + offset, bytes, MPI_BYTE, world_rank(r.peer), id, world_,
                         flight->add(world_rank(r.peer), static_cast<std::size_t>(bytes), true));
      });
    for (const Outgoing& s : sends)
      for_each_part(s.bytes, [&](std::size_t offset, int bytes) {
        return MPI_Isend(static_cast<const std::byte*>(s.data) + offset, bytes, MPI_BYTE, world_rank(s.peer), id,
                         world_, flight->add(world_rank(s.peer), static_cast<std::size_t>(bytes), false));
      });
    std::erase_if(live_, [](const auto& f) { return f->done(); });
    live_.push_back(flight);
    return std::make_shared<MpiEvent>(std::move(flight));
  }

  // MPI moves everything inside any test, so that the oldest is enough.
  void progress() override {
    while (!live_.empty() && live_.front()->poll()) live_.pop_front();
    (void)watch_->hear();  // what it is told, the next wait says
  }

  void barrier() override {
    watch_->check();
    watch_->come_together(world_, "barrier");
  }

  void fail(const Failure& failure) noexcept override { watch_->fail(failure); }

 private:
  void split_from(MPI_Comm callers) {
    constexpr const char* kStep = "split the caller's communicator";
    watch_->come_together(callers, kStep);
    {
      const InsideMpi in_mpi(*watch_, kStep, watch_->others(), 0);
      // Not MPI_Comm_dup, which would carry over the caller's attributes.
      try_mpi(MPI_Comm_split(callers, 0, rank_, &world_), rank_, kStep);
      MPI_Comm_set_errhandler(world_, MPI_ERRORS_RETURN);
    }
    watch_->connect(world_);
    if (options_.rank >= 0) require_permutation();
  }

  // All refuse together, as none would be whom the others call so. Where only some gave a rank, the sums of the others
  // are of other things, and nobody's fits.
  void require_permutation() {
    int is = 0;
    MPI_Comm_rank(world_, &is);
    if (watch_->sum(world_, is == options_.rank ? 0 : 1, "order the ranks") == 0) return;
    MPI_Comm_free(&world_);
    throw InvalidInput("rank", std::to_string(options_.rank),
                       "0 to " + std::to_string(size_ - 1) + ", each on one of the ranks");
  }

  std::size_t parts_of(std::size_t bytes) const {
    return (bytes + options_.largest_message_bytes - 1) / options_.largest_message_bytes;
  }
  template <class Start>
  void for_each_part(std::size_t bytes, const Start& start) {
    for (std::size_t offset = 0; offset < bytes; offset += options_.largest_message_bytes)
      try_mpi(start(offset, static_cast<int>(std::min(bytes - offset, options_.largest_message_bytes))), rank_,
              "start a transfer");
  }

  MpiOptions options_;
  int rank_ = 0, size_ = 1;
  MPI_Comm world_ = MPI_COMM_NULL;
  std::optional<Watch> watch_;
  std::vector<std::vector<int>> channels_;    // by tag: world ranks
  std::deque<std::shared_ptr<Flight>> live_;  // oldest first
};

bool is_up() {
  int initialized = 0, finalized = 0;
  MPI_Initialized(&initialized);
  MPI_Finalized(&finalized);
  return initialized != 0 && finalized == 0;
}

}  // namespace

MpiSession::MpiSession(const MpiOptions& options) : options_(options) {
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
  if (!finalize_ || !is_up() || mpi::is_left_behind()) return;
  if (options_.black_box != nullptr) {
    int rank = 0, size = 1;
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &size);
    std::vector<int> others;
    for (int r = 0; r < size; ++r)
      if (r != rank) others.push_back(r);
    options_.black_box->wait_begins("MPI_Finalize", others, 0, Clock::now() + options_.barrier_deadline);
  }
  MPI_Finalize();
  if (options_.black_box != nullptr) options_.black_box->wait_ends();
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

// Ranks that are processes: ctest runs this program on four of them by mpiexec, and each runs every test.
// What all processes must agree on (which test is next) they do by being the same program; rank 0 reports,
// the others only what failed, and one that failed makes mpiexec fail.

#include "topomoe/communicator_mpi.hpp"

#include <gtest/gtest.h>

#include <iostream>
#include <thread>
#include <vector>

#include "runtime/communicator_counting.hpp"
#include "tests/runtime/communicator_conformance.hpp"
#include "tests/support/deferred_device.hpp"
#include "topomoe/device_cpu.hpp"
#include "topomoe/error.hpp"

namespace topomoe::testing {
namespace {

using Clock = std::chrono::steady_clock;

std::unique_ptr<Communicator> world(std::size_t largest_message = std::size_t{1} << 30) {
  return make_mpi_communicator(nullptr, {.largest_message_bytes = largest_message});
}

class Mpi : public ::testing::TestWithParam<ConformanceCase> {};

TEST_P(Mpi, Conforms) {
  const auto c = world();
  GetParam().body(*c, *make_cpu_device());
  c->barrier();
}

// 8 MiB in 2049 pieces, and the pieces of different exchanges one after another.
TEST_P(Mpi, ConformsInPieces) {
  const auto mpi = world(4096);
  CountingCommunicator c(*mpi);
  GetParam().body(c, *make_cpu_device());
  c.barrier();
}

INSTANTIATE_TEST_SUITE_P(Communicator, Mpi, ::testing::ValuesIn(conformance_cases()),
                         [](const auto& test) { return test.param.name; });

// Pairs (0,1), (2,3), ..: the even rank sends `sent` bytes, the odd one expects `expected`. Returns the odd
// one's error.
std::string pair_error(Communicator& c, std::size_t sent, std::size_t expected, std::chrono::milliseconds patience) {
  static char data[64];  // outlives transfers that never end
  const int pair[] = {c.rank() / 2 * 2, c.rank() / 2 * 2 + 1};
  const ChannelId channel = c.open_channel(pair);
  const bool sends = c.rank() % 2 == 0;
  const Outgoing out{1, data, sends ? sent : 0};
  const Incoming in{0, data, sends ? 0 : expected};
  try {
    c.exchange(channel, {&out, 1}, {&in, 1}, {.step = "dispatch.3"})->wait(Clock::now() + patience);
  } catch (const TransportError& e) {
    EXPECT_EQ(e.rank, c.rank());
    EXPECT_EQ(e.peer, c.rank() - 1);
    EXPECT_EQ(e.step, "dispatch.3");
    EXPECT_EQ(e.bytes, static_cast<double>(expected));
    return e.what();
  }
  return "";
}

TEST(MpiFailure, WrongSize_ReceiverNamesPeerAndStep) {
  const auto c = world();
  if (c->size() % 2 != 0) GTEST_SKIP() << "needs pairs";
  const auto patience = std::chrono::seconds(20);
  EXPECT_EQ(pair_error(*c, 8, 64, patience).empty(), c->rank() % 2 == 0);
  EXPECT_EQ(pair_error(*c, 64, 8, patience).empty(), c->rank() % 2 == 0);
  EXPECT_TRUE(pair_error(*c, 8, 8, patience).empty());  // what followed is not disturbed
  c->barrier();
}

TEST(MpiFailure, PeerNeverSends_DeadlineNamesPeerAndBytes) {
  const auto c = world();
  if (c->size() % 2 != 0) GTEST_SKIP() << "needs pairs";
  const std::string why = pair_error(*c, 0, 16, std::chrono::milliseconds(50));
  if (c->rank() % 2 == 1) {
    EXPECT_NE(why.find("16 bytes from " + std::to_string(c->rank() - 1)), std::string::npos) << why;
  }
  c->barrier();
}

TEST(MpiFailure, RankStaysAway_BarrierHasADeadline) {
  const auto late = make_mpi_communicator(nullptr, {.barrier_deadline = std::chrono::milliseconds(50)});
  const auto c = world();
  if (c->size() == 1) GTEST_SKIP() << "needs two ranks";
  if (c->rank() != 0) {
    EXPECT_THROW(late->barrier(), TransportError);
  }
  c->barrier();
  if (c->rank() == 0) late->barrier();  // completes theirs
  c->barrier();
}

TEST(MpiFailure, RankOpensNoChannel_TheOthersHaveADeadline) {
  const auto late = make_mpi_communicator(nullptr, {.barrier_deadline = std::chrono::milliseconds(50)});
  const auto c = world();
  if (c->size() == 1) GTEST_SKIP() << "needs two ranks";
  const int me[] = {c->rank()};
  if (c->rank() != 0) {
    try {
      late->open_channel(me);
      ADD_FAILURE() << "no error";
    } catch (const TransportError& e) {
      EXPECT_EQ(e.rank, c->rank());
      EXPECT_EQ(e.step, "open channel");
    }
  }
  c->barrier();
  if (c->rank() == 0) late->open_channel(me);  // what the others have begun
  c->barrier();
}

// A transfer too large to be buffered, driven by nothing but a kernel's hook between blocks of its work.
TEST(MpiProgress, HookOfACallersKernel_CompletesTheExchange) {
  const auto c = world();
  if (c->size() % 2 != 0) GTEST_SKIP() << "needs pairs";
  const int pair[] = {c->rank() / 2 * 2, c->rank() / 2 * 2 + 1};
  const ChannelId channel = c->open_channel(pair);
  std::vector<std::byte> out(std::size_t{4} << 20, std::byte{1}), in(out.size());
  const int peer = 1 - c->rank() % 2;
  const Outgoing send{peer, out.data(), out.size()};
  const Incoming receive{peer, in.data(), in.size()};
  const ProgressHook hook = progress_hook(*c);
  const EventPtr event = c->exchange(channel, {&send, 1}, {&receive, 1}, {.step = "s"});
  // Polling the event would drive MPI, too: the last byte says it.
  const volatile std::byte& last = in.back();
  for (const auto until = Clock::now() + std::chrono::seconds(20); Clock::now() < until && last == std::byte{0};)
    hook();
  EXPECT_TRUE(last == std::byte{1});
  event->wait(Clock::now() + std::chrono::seconds(20));
  c->barrier();
}

TEST(MpiFailure, RanksDisagreeOnMembers_IsRefused) {
  const auto c = world();
  if (c->size() < 3) GTEST_SKIP() << "needs three ranks";
  std::vector<int> members(static_cast<std::size_t>(c->size()));
  for (int i = 0; i < c->size(); ++i) members[static_cast<std::size_t>(i)] = i;
  if (c->rank() == 0) members.pop_back();
  EXPECT_THROW(c->open_channel(members), InvalidInput);
  if (c->rank() == 0) members = {1};
  EXPECT_THROW(c->open_channel(members), InvalidInput);
}

// Backwards: who is first in the job is last here, and what is sent to rank 0 arrives at the last process.
TEST(MpiFactory, RanksInAnotherOrder_AreWhomTheyAreCalled) {
  const auto job = world();
  const int called = job->size() - 1 - job->rank();
  const auto c = make_mpi_communicator(nullptr, {.rank = called});
  EXPECT_EQ(c->rank(), called);
  std::vector<int> all(static_cast<std::size_t>(c->size()));
  for (int i = 0; i < c->size(); ++i) all[static_cast<std::size_t>(i)] = i;
  const ChannelId channel = c->open_channel(all);
  int from_first = -1;
  std::vector<Outgoing> sends;
  const int in_job = job->rank();
  if (called == 0)
    for (const int peer : all) sends.push_back({peer, &in_job, sizeof in_job});
  const Incoming receive{0, &from_first, sizeof from_first};
  c->exchange(channel, sends, {&receive, 1}, {.step = "s"})->wait(Clock::now() + std::chrono::seconds(20));
  EXPECT_EQ(from_first, c->size() - 1);
  if (c->size() > 1) {
    EXPECT_THROW(make_mpi_communicator(nullptr, {.rank = 0}), InvalidInput);
  }
}

TEST(MpiFactory, PieceTooLargeForInt_IsRefused) { EXPECT_THROW(world((std::size_t{1} << 30) + 1), InvalidInput); }

TEST(MpiFactory, GpuMemory_IsRefusedWhenALayerAsks) {
  const auto c = world();
  DeferredDevice gpu(1);
  EXPECT_EQ(c->refuses(*make_cpu_device()), "");
  EXPECT_EQ(c->refuses(gpu), "MPI moves host memory here: take the cpu device, or NCCL");
  const int me[] = {c->rank()};
  const ChannelId channel = c->open_channel(me);
  EXPECT_THROW(c->exchange(channel, {}, {}, {.step = "s", .memory = gpu.memory_space()}), InvalidInput);
}

// Instead of tests: the last rank gives up while the others wait for an hour, one of them for a rank that only waits
// itself. They hear at once who it was; nobody's MPI is finalized. ctest looks at what is said.
int last_rank_fails(Communicator& c) {
  const int last = c.size() - 1;
  std::vector<int> members(static_cast<std::size_t>(c.size()));
  for (int i = 0; i < c.size(); ++i) members[static_cast<std::size_t>(i)] = i;
  static char data[4];  // outlives what never ends
  const Incoming in{c.rank() + 1, data, sizeof data};
  const auto channel = c.open_channel(members);
  if (c.rank() == last) {
    c.fail({.rank = last, .culprit = last, .step = "none", .why = "the power is out"});
    EXPECT_THROW(c.barrier(), TransportError);  // it is over for the rank itself, too
  } else {
    try {
      c.exchange(channel, {}, {&in, 1}, {.step = "s"})->wait(Clock::now() + std::chrono::hours(1));
    } catch (const TransportError& e) {
      std::cout << ("rank " + std::to_string(c.rank()) + " hears of culprit " + std::to_string(e.culprit) + "\n")
                << std::flush;
      c.fail(e.failure());
    }
  }
  std::this_thread::sleep_for(std::chrono::seconds(2));  // or mpiexec ends the others before they have spoken
  end_mpi_job();
  return 1;
}

// Says nothing but what failed.
class FailuresOnly final : public ::testing::EmptyTestEventListener {
 public:
  explicit FailuresOnly(int rank) : rank_(rank) {}
  void OnTestStart(const ::testing::TestInfo& test) override { test_ = test.name(); }
  void OnTestPartResult(const ::testing::TestPartResult& r) override {
    if (!r.failed()) return;
    std::cerr << "[rank " << rank_ << "] " << test_ << ": " << (r.file_name() != nullptr ? r.file_name() : "") << ":"
              << r.line_number() << ": " << r.message() << std::endl;
  }

 private:
  int rank_;
  std::string test_;
};

}  // namespace
}  // namespace topomoe::testing

int main(int argc, char** argv) {
  ::testing::InitGoogleTest(&argc, argv);
  const topomoe::MpiSession session;
  const auto c = topomoe::make_mpi_communicator();
  if (argc > 1 && std::string(argv[1]) == "--fail") return topomoe::testing::last_rank_fails(*c);
  if (c->rank() == 0) {
    std::cout << topomoe::mpi_description() << ", " << c->size() << " ranks\n";
  } else {
    auto& listeners = ::testing::UnitTest::GetInstance()->listeners();
    delete listeners.Release(listeners.default_result_printer());
    listeners.Append(new topomoe::testing::FailuresOnly(c->rank()));
  }
  return RUN_ALL_TESTS();
}

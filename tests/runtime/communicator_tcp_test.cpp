// Ranks connected by TCP: the conformance suite, each rank a thread with connections of its own, and what only such
// ranks can promise: how they come together, and that the death of a process is told by its connections.

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <exception>
#include <functional>
#include <map>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "runtime/socket.hpp"
#include "tests/runtime/communicator_conformance.hpp"
#include "topomoe/communicator_tcp.hpp"
#include "topomoe/device_cpu.hpp"
#include "topomoe/error.hpp"

namespace topomoe::testing {
namespace {

using Clock = std::chrono::steady_clock;
using namespace std::chrono_literals;

int free_port() { return port_of(listen_on(0)); }

TcpPlace place(int rank, int size, int port) { return {rank, size, "127.0.0.1", port}; }

// Runs body on `size` threads; what each threw, empty where nothing.
std::vector<std::string> run_tcp(int size, const std::function<void(Communicator&)>& body, TcpOptions options = {}) {
  const int port = free_port();
  std::vector<std::string> errors(static_cast<std::size_t>(size));
  std::vector<std::thread> threads;
  for (int rank = 0; rank < size; ++rank)
    threads.emplace_back([&, rank] {
      try {
        const auto c = make_tcp_communicator(place(rank, size, port), options);
        body(*c);
        c->barrier();
      } catch (const std::exception& e) {
        errors[static_cast<std::size_t>(rank)] = e.what();
      }
    });
  for (std::thread& t : threads) t.join();
  return errors;
}

class Tcp : public ::testing::TestWithParam<std::tuple<int, ConformanceCase>> {};

TEST_P(Tcp, Conforms) {
  for (const std::string& error :
       run_tcp(std::get<0>(GetParam()), [](Communicator& c) { std::get<1>(GetParam()).body(c, *make_cpu_device()); }))
    EXPECT_EQ(error, "");
}
INSTANTIATE_TEST_SUITE_P(Communicator, Tcp,
                         ::testing::Combine(::testing::Values(1, 2, 3, 8), ::testing::ValuesIn(conformance_cases())),
                         [](const auto& test) {
                           return std::to_string(std::get<0>(test.param)) + "_" + std::get<1>(test.param).name;
                         });

TEST(TcpFailure, WrongSize_ReceiverHearsBothSizes_AndWhatFollowsIsNotDisturbed) {
  for (const std::string& error : run_tcp(2, [](Communicator& c) {
         const int both[] = {0, 1};
         const ChannelId channel = c.open_channel(both);
         std::vector<char> data(200000, static_cast<char>('a' + c.rank()));
         const auto move = [&](std::size_t sent, std::size_t expected) {
           const Outgoing out{1, data.data(), sent};
           const Incoming in{0, data.data(), expected};
           (c.rank() == 0 ? c.exchange(channel, {&out, 1}, {}, {.step = "out"})
                          : c.exchange(channel, {}, {&in, 1}, {.step = "in"}))
               ->wait(Clock::now() + 20s);
         };
         for (const auto& [sent, expected] : {std::pair{150000U, 64U}, {64U, 150000U}}) {
           if (c.rank() == 0) {
             move(sent, expected);
             continue;
           }
           try {
             move(sent, expected);
             ADD_FAILURE() << "no error";
           } catch (const TransportError& e) {
             EXPECT_EQ(e.peer, 0);
             EXPECT_EQ(e.step, "in");
             EXPECT_EQ(e.why,
                       "the peer sends " + std::to_string(sent) + " bytes, expected are " + std::to_string(expected));
             EXPECT_EQ(data[expected < sent ? 64 : 149999], 'b');  // nothing beyond what was asked for
           }
         }
         move(200000, 200000);
         EXPECT_EQ(data[199999], 'a');
       }))
    EXPECT_EQ(error, "");
}

TEST(TcpFailure, PeerNeverSends_DeadlineNamesPeerStepAndBytes) {
  const auto errors = run_tcp(2, [](Communicator& c) {
    const int both[] = {0, 1};
    const ChannelId channel = c.open_channel(both);
    static char data[4];
    const Incoming receive{1, data, sizeof data};
    if (c.rank() == 0) c.exchange(channel, {}, {&receive, 1}, {.step = "dispatch.3"})->wait(Clock::now() + 50ms);
  });
  // Rank 1 is the culprit, unless it came to the barrier already: then both wait for each other.
  EXPECT_NE(errors[0].find("step dispatch.3, 4 bytes: still missing at the deadline: 4 bytes from 1"),
            std::string::npos)
      << errors[0];
  EXPECT_EQ(errors[0].rfind("rank 0, peer 1", 0), 0U) << errors[0];
}

TEST(TcpFailure, Fail_UnblocksWaitsAndBarriers_WithTheSameCulprit) {
  const auto begin = Clock::now();
  const auto errors = run_tcp(4, [](Communicator& c) {
    const int all[] = {0, 1, 2, 3};
    const ChannelId channel = c.open_channel(all);
    static char data[4][4];
    if (c.rank() == 3) {
      std::this_thread::sleep_for(20ms);
      c.fail({.rank = 3, .culprit = 3, .step = "none", .why = "the power is out"});
      EXPECT_THROW(c.exchange(channel, {}, {}, {.step = "s"}), TransportError);
      c.barrier();
    }
    const Incoming receive{3, data[c.rank()], 4};
    if (c.rank() == 1) c.exchange(channel, {}, {&receive, 1}, {.step = "s"})->wait(Clock::now() + 60s);
    c.barrier();
  });
  for (const std::string& e : errors) EXPECT_NE(e.find("culprit 3"), std::string::npos) << e;
  EXPECT_LT(Clock::now() - begin, 20s);
}

TEST(TcpFailure, RankStaysAway_BarrierHasADeadline) {
  const auto errors = run_tcp(3,
                              [](Communicator& c) {
                                if (c.rank() == 2) std::this_thread::sleep_for(1s);
                              },
                              {.deadline = 300ms});
  EXPECT_NE(errors[0].find("culprit 2, step barrier"), std::string::npos) << errors[0];
}

TEST(TcpFailure, RanksDisagreeOnMembers_AllRefuse) {
  for (const std::string& error : run_tcp(3, [](Communicator& c) {
         std::vector<int> members{0, 1, 2};
         if (c.rank() == 0) members.pop_back();
         EXPECT_THROW(c.open_channel(members), InvalidInput);
         members = {2, 1, 0};
         if (c.rank() == 1) members = {1, 2, 0};
         EXPECT_THROW(c.open_channel(members), InvalidInput);
         if (c.rank() == 1) members = {0, 2};
         EXPECT_THROW(c.open_channel(members), InvalidInput);
         c.open_channel(std::vector{0, 1, 2});
       }))
    EXPECT_EQ(error, "");
}

// A process that is killed says nothing; its connections do. 1 waits for it, 0 only for 1.
TEST(TcpFailure, ProcessDies_SurvivorsNameItAtOnce) {
  const int port = free_port();
  const auto part = [&](int rank) -> int {
    try {
      const auto c = make_tcp_communicator(place(rank, 3, port));
      const int all[] = {0, 1, 2};
      const ChannelId channel = c->open_channel(all);
      static char data[4];
      if (rank == 2) _exit(0);
      const Incoming receive{rank + 1, data, sizeof data};
      try {
        c->exchange(channel, {}, {&receive, 1}, {.step = "s"})->wait(Clock::now() + 60s);
      } catch (const TransportError& e) {
        c->fail(e.failure());
        return 10 * e.peer + e.culprit;
      }
    } catch (const std::exception&) {
    }
    return 99;
  };
  const auto begin = Clock::now();
  std::vector<pid_t> children;
  for (int rank = 0; rank < 3; ++rank) {
    const pid_t child = fork();
    ASSERT_GE(child, 0);
    if (child == 0) _exit(part(rank));
    children.push_back(child);
  }
  const int expected[] = {12, 22, 0};
  for (std::size_t r = 0; r < 3; ++r) {
    int status = 0;
    waitpid(children[r], &status, 0);
    ASSERT_TRUE(WIFEXITED(status));
    EXPECT_EQ(WEXITSTATUS(status), expected[r]) << "rank " << r;
  }
  EXPECT_LT(Clock::now() - begin, 20s);
}

TEST(TcpMeeting, TwoProcessesOfOneRank_AllAreTold) {
  const int port = free_port();
  std::vector<std::string> errors(3);
  std::vector<std::thread> threads;
  for (std::size_t i = 0; i < 3; ++i)
    threads.emplace_back([&, i] {
      try {
        make_tcp_communicator(place(i == 0 ? 0 : 1, 3, port), {.deadline = 5s});
      } catch (const InvalidInput& e) {
        errors[i] = e.what();
      }
    });
  for (std::thread& t : threads) t.join();
  for (const std::string& e : errors)
    EXPECT_EQ(e, "RANK, WORLD_SIZE: two processes are rank 1: each process is another rank of as many");
}

// A process that came, was gone before all were there, and is started again; also when the last of the others comes
// while it is away.
class TcpRestart : public ::testing::TestWithParam<bool> {};

TEST_P(TcpRestart, BeforeAllHaveCome_ItsSuccessorTakesItsPlace) {
  const int port = free_port();
  std::vector<std::string> errors(3);
  std::vector<std::thread> threads;
  const auto start = [&](int rank) {
    threads.emplace_back([&, rank] {
      try {
        make_tcp_communicator(place(rank, 3, port), {.deadline = 20s})->barrier();
      } catch (const std::exception& e) {
        errors[static_cast<std::size_t>(rank)] = e.what();
      }
    });
  };
  start(0);
  try {
    make_tcp_communicator(place(1, 3, port), {.deadline = 1s});
    ADD_FAILURE() << "no error";
  } catch (const TransportError& e) {
    EXPECT_EQ(e.why, "receive: the deadline has passed");  // so rank 0 had heard of it
  }
  if (GetParam()) {
    start(2);
    std::this_thread::sleep_for(100ms);
  }
  start(1);
  if (!GetParam()) start(2);
  for (std::thread& t : threads) t.join();
  for (const std::string& e : errors) EXPECT_EQ(e, "");
}
INSTANTIATE_TEST_SUITE_P(Communicator, TcpRestart, ::testing::Values(false, true),
                         [](const auto& test) { return test.param ? "WhileTheLastComes" : "BeforeTheLast"; });

TEST(TcpMeeting, RankMissing_IsNamed) {
  try {
    make_tcp_communicator(place(0, 3, free_port()), {.deadline = 30ms});
    ADD_FAILURE() << "no error";
  } catch (const TransportError& e) {
    EXPECT_STREQ(e.what(), "rank 0, step meet, 0 bytes: ranks that did not come before the deadline: 1, 2");
  }
}

TEST(TcpMeeting, PortInUse_IsSaid) {
  const Socket other = listen_on(0);
  EXPECT_THROW(make_tcp_communicator(place(0, 2, port_of(other))), InvalidInput);
}

// Neither one who says something else nor one who says nothing keeps the ranks from meeting.
TEST(TcpMeeting, Stranger_IsIgnored) {
  const int port = free_port();
  std::thread stranger([&] {
    const Socket s = connect_to({resolve_ipv4("127.0.0.1"), static_cast<std::uint16_t>(port)}, Clock::now() + 5s);
    const std::string text = "GET / HTTP/1.0\r\n\r\n" + std::string(400, ' ');
    send_whole(s, text.data(), text.size(), Clock::now() + 5s);
  });
  std::thread second([&] {
    stranger.join();
    make_tcp_communicator(place(1, 2, port))->barrier();
  });
  make_tcp_communicator(place(0, 2, port))->barrier();
  second.join();
}

TEST(TcpPlaces, ComeFromTheEnvironment) {
  std::map<std::string, std::string> e{{"RANK", "3"}, {"WORLD_SIZE", "8"}};
  const auto lookup = [&](const std::string& name) -> std::optional<std::string> {
    const auto at = e.find(name);
    return at == e.end() ? std::nullopt : std::optional(at->second);
  };
  const auto refused = [&] {
    try {
      (void)read_tcp_place(lookup);
    } catch (const InvalidInput& error) {
      return error.field;
    }
    return std::string();
  };
  EXPECT_EQ(refused(), "MASTER_ADDR");
  e["MASTER_ADDR"] = "host7";
  EXPECT_EQ(refused(), "MASTER_PORT");
  e["MASTER_PORT"] = "29500x";
  EXPECT_EQ(refused(), "MASTER_PORT");
  e["MASTER_PORT"] = "29500";
  const TcpPlace p = read_tcp_place(lookup);
  EXPECT_EQ(p.rank, 3);
  EXPECT_EQ(p.size, 8);
  EXPECT_EQ(p.address, "host7");
  EXPECT_EQ(p.port, 29500);
  e["TORCHELASTIC_USE_AGENT_STORE"] = "True";
  EXPECT_EQ(refused(), "TOPOMOE_MASTER_PORT");
  e["TOPOMOE_MASTER_PORT"] = "29600";
  EXPECT_EQ(read_tcp_place(lookup).port, 29600);
  e.clear();
  EXPECT_EQ(read_tcp_place(lookup).size, 1);
}

}  // namespace
}  // namespace topomoe::testing

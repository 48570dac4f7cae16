// Last words and the search for the culprit: pure functions, and ranks of this process that ask each other by UDP.

#include "topomoe/black_box.hpp"

#include <gtest/gtest.h>

#include <atomic>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "runtime/distress.hpp"

namespace topomoe::testing {
namespace {

Wait waiting(const std::vector<int>& peers, const char* step = "s", double bytes = 0) {
  BlackBox box;
  box.wait_begins(step, peers, bytes);
  return box.read();
}

std::string words(const Wait& wait, int culprit, std::size_t room = 256) {
  std::vector<char> line(room);
  const std::size_t n = write_last_words(line, 2, culprit, wait, "why");
  return {line.data(), n};
}

int culprit(int me, const std::vector<Wait>& waits, std::vector<unsigned char> blameless = {}) {
  blameless.resize(waits.size());
  std::vector<int> queue(waits.size());
  std::vector<unsigned char> seen(waits.size());
  return find_culprit(me, waits, blameless, queue, seen);
}

TEST(LastWords, Wait_NamesAllItKnows) {
  EXPECT_EQ(words(waiting({3}, "dispatch", 4096), 3),
            "topomoe: rank 2, peer 3, culprit 3, step dispatch, 4096 bytes: why\n");
  EXPECT_EQ(words(waiting({0, 3}, "x", 1), -1), "topomoe: rank 2, peers 0 3, step x, 1 bytes: why\n");
  EXPECT_EQ(words(Wait{}, -1), "topomoe: rank 2, step none, 0 bytes: why\n");
}

TEST(LastWords, LineTooShort_IsCutAndStillALine) { EXPECT_EQ(words(waiting({3}), 3, 16), "topomoe: rank 2\n"); }

TEST(LastWords, MorePeersThanThereIsRoomFor_SaysSo) {
  const std::vector<int> many(100, 7);
  EXPECT_NE(words(waiting(many), -1, 1024).find(" 7 and more, step s"), std::string::npos);
}

TEST(BlackBox, LongStep_IsCut_AndWaitsEnd) {
  BlackBox box;
  const int peer = 1;
  box.wait_begins(std::string(200, 'x'), {&peer, 1}, 8);
  EXPECT_EQ(std::string(box.read().step.data()), std::string(63, 'x'));
  box.wait_ends();
  EXPECT_EQ(box.read().count, 0);
}

TEST(BlackBox, Until_IsTheWaitsOwn_AndNeverOnceItEnds) {
  BlackBox box;
  EXPECT_EQ(box.until(), BlackBox::TimePoint::max());
  const auto soon = std::chrono::steady_clock::now() + std::chrono::seconds(3);
  box.wait_begins("s", {}, 0, soon);
  EXPECT_EQ(box.until(), soon);
  box.wait_ends();
  EXPECT_EQ(box.until(), BlackBox::TimePoint::max());
}

// 0 -> 1 -> 2, 3 waits for nobody either, but nobody waits for 3.
TEST(Culprit, IsWhoIsWaitedForAndDoesNotWait) {
  const std::vector<Wait> waits{waiting({1}), waiting({2}), Wait{}, Wait{}};
  EXPECT_EQ(culprit(0, waits), 2);
  EXPECT_EQ(culprit(1, waits), 2);
  EXPECT_EQ(culprit(3, waits), -1);
}

TEST(Culprit, BlamelessRank_IsPassedOver) {
  const std::vector<Wait> waits{waiting({1, 2}), Wait{}, waiting({3}), Wait{}};
  EXPECT_EQ(culprit(0, waits), 1);
  EXPECT_EQ(culprit(0, waits, {0, 1, 0, 0}), 3);
}

TEST(Culprit, AllWaitForEachOther_NobodyIs) {
  EXPECT_EQ(culprit(0, {waiting({1}), waiting({2}), waiting({0})}), -1);
  EXPECT_EQ(culprit(0, {waiting({0, 9, -1})}), -1);  // and ranks that are none are ignored
}

// The ranks of one job: those that answer look at their mail, others are silent; a dead one has no socket.
struct Job {
  explicit Job(int size) {
    for (int r = 0; r < size; ++r) {
      boxes.push_back(std::make_unique<BlackBox>());
      ranks.push_back(std::make_unique<Distress>(r, size, *boxes.back()));
    }
    std::vector<DistressAddress> all;
    for (const auto& r : ranks) all.push_back(r->mine());
    for (const auto& r : ranks) r->connect(all, 42);
  }
  ~Job() {
    over = true;
    for (auto& t : threads) t.join();
  }
  void waits(int rank, const std::vector<int>& peers) { boxes[at(rank)]->wait_begins("s", peers, 1); }
  void answers(int rank) {
    threads.emplace_back([this, d = ranks[at(rank)].get()] {
      while (!over) d->linger(std::chrono::milliseconds(5));
    });
  }
  static std::size_t at(int rank) { return static_cast<std::size_t>(rank); }
  std::atomic<bool> over = false;
  std::vector<std::unique_ptr<BlackBox>> boxes;
  std::vector<std::unique_ptr<Distress>> ranks;
  std::vector<std::thread> threads;
};

constexpr auto kLong = std::chrono::seconds(60);
constexpr auto kShort = std::chrono::milliseconds(300);

// 0 -> 1 -> 2, and 2 is dead: known as soon as 1 has answered and the system has refused, without any waiting.
TEST(Distress, PeerWaitsForADeadRank_IsKnownAtOnce) {
  Job job(4);
  job.waits(0, {1}), job.waits(1, {2});
  job.answers(1);
  job.ranks[2].reset();
  const auto begin = std::chrono::steady_clock::now();
  EXPECT_EQ(job.ranks[0]->ask(kLong, Blame::the_silent), 2);
  EXPECT_LT(std::chrono::steady_clock::now() - begin, kLong / 2);
}

TEST(Distress, StoppedRank_IsTheSilentOne) {
  Job job(4);
  job.waits(0, {1, 3}), job.waits(1, {2}), job.waits(3, {0});
  job.answers(1), job.answers(3);
  EXPECT_EQ(job.ranks[0]->ask(kShort, Blame::the_silent), 2);
}

// 1 waits for dead 2 but cannot say so: stuck in its transport.
TEST(Distress, SilentAndDead_TheDeadIsToBlame) {
  Job job(3);
  job.waits(0, {1});
  job.ranks[2].reset();
  EXPECT_EQ(job.ranks[0]->ask(kShort, Blame::the_silent), 2);
}

// 1 computes for ever. Where a job is ended from outside that is no fault.
TEST(Distress, AllAnswer_WhoDoesNotWaitIsToBlameAtADeadlineOnly) {
  Job job(3);
  job.waits(0, {1}), job.waits(2, {1});
  job.answers(1), job.answers(2);
  EXPECT_EQ(job.ranks[0]->ask(kShort, Blame::the_busy_too), 1);
  EXPECT_EQ(job.ranks[0]->ask(kShort, Blame::the_silent), -1);
}

// 1 has found the culprit, told it and is gone itself: 0 must not blame it.
TEST(Distress, RankThatToldAndLeft_IsBelieved) {
  Job job(3);
  job.waits(0, {1}), job.waits(1, {2});
  job.ranks[1]->tell(2);
  job.ranks[1].reset();
  EXPECT_EQ(job.ranks[0]->ask(kLong, Blame::the_silent), 2);
}

TEST(Distress, ForeignMail_IsIgnored) {
  Job job(2), other(2);
  std::vector<DistressAddress> mixed{other.ranks[0]->mine(), job.ranks[1]->mine()};
  other.ranks[0]->connect(mixed, 43);  // another job's number
  other.ranks[0]->tell(1);
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  EXPECT_EQ(job.ranks[1]->look(), -1);
}

}  // namespace
}  // namespace topomoe::testing

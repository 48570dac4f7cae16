#include "topology/discover/in_child.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <thread>

namespace topomoe {
namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;

// The last byte tells a whole answer from one that was cut off.
constexpr char kAnswer = 'a', kThrown = 't';

[[noreturn]] void be_the_child(const std::function<std::string()>& work, int pipe) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  dup2(STDERR_FILENO, STDOUT_FILENO);
  std::string text;
  try {
    text = work() + kAnswer;
  } catch (const std::exception& problem) {
    text = std::string(problem.what()) + kThrown;
  }
  for (std::size_t done = 0; done < text.size();) {
    const ssize_t now = write(pipe, text.data() + done, text.size() - done);
    if (now > 0) done += static_cast<std::size_t>(now);
    if (now < 0 && errno != EINTR) break;
  }
  _exit(0);
}

// All until the other end is closed; false at the deadline.
bool read_all(int pipe, Clock::time_point end, std::string& text) {
  std::array<char, 65536> block{};
  while (true) {
    const auto left = std::chrono::ceil<milliseconds>(end - Clock::now()).count();
    if (left <= 0) return false;
    pollfd waits{pipe, POLLIN, 0};
    if (poll(&waits, 1, static_cast<int>(std::min<std::int64_t>(left, 1 << 20))) <= 0) continue;
    const ssize_t got = read(pipe, block.data(), block.size());
    if (got == 0) return true;
    if (got > 0) text.append(block.data(), static_cast<std::size_t>(got));
    if (got < 0 && errno != EINTR) return true;
  }
}

// The status of a child that has ended or was killed; 0 for one that stays.
int reap(pid_t child) {
  for (int tries = 0; tries < 200; ++tries) {
    int status = 0;
    const pid_t ended = waitpid(child, &status, WNOHANG);
    if (ended == child) return status;
    if (ended < 0 && errno != EINTR) return 0;
    std::this_thread::sleep_for(milliseconds(5));
  }
  kill(child, SIGKILL);
  return 0;
}

}  // namespace

ChildAnswer in_child(const std::function<std::string()>& work, std::chrono::milliseconds deadline) {
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) return {std::nullopt, fmt::format("no pipe: {}", std::strerror(errno))};
  const pid_t child = fork();
  if (child == 0) be_the_child(work, ends[1]);
  close(ends[1]);
  if (child < 0) {
    close(ends[0]);
    return {std::nullopt, fmt::format("no process: {}", std::strerror(errno))};
  }
  std::string text;
  const bool in_time = read_all(ends[0], Clock::now() + deadline, text);
  close(ends[0]);
  if (!in_time) kill(child, SIGKILL);
  const int status = reap(child);
  if (!in_time)
    return {std::nullopt, fmt::format("no answer within {} s", std::chrono::duration<double>(deadline).count())};
  const char end = text.empty() ? '\0' : text.back();
  if (end != kAnswer && end != kThrown)
    return {std::nullopt, WIFSIGNALED(status) ? fmt::format("ended by signal {}", WTERMSIG(status))
                                              : std::string("ended without an answer")};
  text.pop_back();
  if (end == kThrown) return {std::nullopt, text};
  return {text, {}};
}

}  // namespace topomoe

#include "cli/last_words.hpp"

#include <poll.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <csignal>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "runtime/distress.hpp"
#include "topomoe/communicator_mpi.hpp"
#include "topomoe/launcher_env.hpp"

namespace topomoe::cli {
namespace {

using Clock = std::chrono::steady_clock;

// mpirun sends SIGKILL a second after SIGTERM (odls_base_sigkill_timeout of Open MPI 4.1): done by then.
constexpr auto kPatience = std::chrono::milliseconds(400);
// Others are told at once, but may be in a kernel, or without a core. Assumed. Nor may any rank end sooner: mpirun's
// second is a sleep(1) that the first child's SIGCHLD interrupts, and what is left of it is rounded down to nothing
// (Open MPI 4.1, odls_base_default_fns.c), so that the others would have a millisecond to speak in.
constexpr auto kGrace = std::chrono::milliseconds(500);
// A thread that can, says itself that its wait is over: it asks the others for half a second at most, twice if need
// be, and starts before the deadline. Measured with four ranks on two busy cores: up to 0.6 s late.
constexpr auto kOverdue = std::chrono::milliseconds(800);
// A thread that takes signals has spoken by then, on a core that it shares. Assumed.
constexpr auto kBusy = std::chrono::milliseconds(400);
// MPI_Abort either ends this process or never comes back. Assumed.
constexpr auto kToAbort = std::chrono::milliseconds(200);
// Processes of one job may start so far apart, however short a deadline steps have. Assumed: slow file systems, a
// launcher that goes from host to host.
constexpr auto kLaunch = std::chrono::seconds(20);
constexpr timespec kWatchEvery{.tv_sec = 0, .tv_nsec = 100'000'000};
constexpr std::string_view kTerminated = "ended by SIGTERM";
constexpr std::string_view kStuck = "still inside the MPI library after the deadline";

std::atomic<bool> speaking{false}, claimed{false}, spoken{false};  // one reason to speak is enough, and one line
std::atomic<pid_t> armed_process{0};                               // a child between fork and exec has nothing to say

[[noreturn]] void end(int code) {
  while (true) syscall(SYS_exit_group, code);
}

sigset_t our_signals() {
  sigset_t set;
  sigemptyset(&set), sigaddset(&set, SIGTERM), sigaddset(&set, SIGALRM);
  return set;
}

// Who speaks is not to be interrupted by another reason to speak: that one would find it done, and end the process.
void block_our_signals() {
  const sigset_t set = our_signals();
  pthread_sigmask(SIG_BLOCK, &set, nullptr);
}

// Async-signal-safe.
void linger() {
  if (Distress* const distress = black_box().distress; distress != nullptr) return distress->linger(kGrace);
  for (const auto over = Clock::now() + kGrace; Clock::now() < over;) (void)poll(nullptr, 0, 10);
}

void write_words(int culprit, const Wait& wait, std::string_view why) {
  if (claimed.exchange(true)) return;
  std::array<char, 1024> line{};
  const std::size_t length = write_last_words(line, black_box().rank, culprit, wait, why);
  (void)!write(STDERR_FILENO, line.data(), length);
  spoken = true;
}

enum class Speak { if_something_is_known, in_any_case };

// Async-signal-safe. False: another reason to speak came first, or there is nothing to say.
bool speak(std::string_view why, Speak when) {
  if (speaking.exchange(true)) return false;
  block_our_signals();
  BlackBox& box = black_box();
  const Wait wait = box.read();
  // Whoever leaves has passed on all that it had: mpirun ends it because another one has said why it fails.
  if (std::string_view(wait.step.data()) == "MPI_Finalize" && when == Speak::if_something_is_known) return false;
  Distress* const distress = box.distress;
  const int culprit = distress != nullptr ? distress->ask(kPatience, Blame::the_silent) : -1;
  if (wait.count > 0 || culprit >= 0 || when == Speak::in_any_case) write_words(culprit, wait, why);
  if (distress != nullptr) distress->tell(culprit);
  return true;
}

void on_signal(int signal) {
  if (signal == SIGTERM)
    speak(kTerminated, Speak::if_something_is_known);
  else
    speak(kStuck, Speak::in_any_case);
  linger();
  end(1);
}

void handle(int signal) {
  struct sigaction action {};
  action.sa_handler = on_signal;
  action.sa_mask = our_signals();
  sigaction(signal, &action, nullptr);
}

sigset_t only(int signal) {
  sigset_t set;
  sigemptyset(&set), sigaddset(&set, signal);
  return set;
}

// The rank's thread may be inside a call that does not come back: it is made to speak, and if it takes no signals
// either, this thread does. So it does for SIGTERM while MPI starts, which all other threads leave alone. Later that is
// the rank's thread's, without a detour.
void watch(pthread_t rank_thread) {
  const sigset_t term = only(SIGTERM);
  sigset_t nothing;
  sigemptyset(&nothing);
  while (Clock::now() - kOverdue < black_box().until()) {
    if (sigtimedwait(armed_process == 0 ? &term : &nothing, nullptr, &kWatchEvery) != SIGTERM) continue;
    if (armed_process == 0) {
      write_words(-1, black_box().read(), kTerminated);
      std::this_thread::sleep_for(kGrace);
      end(1);
    }
    pthread_kill(rank_thread, SIGTERM);
  }
  pthread_kill(rank_thread, SIGALRM);
  const auto end_of_patience = Clock::now() + kPatience + kBusy;
  while (!spoken && Clock::now() < end_of_patience) std::this_thread::sleep_for(std::chrono::milliseconds(10));
  write_words(-1, black_box().read(), kStuck);
  std::this_thread::sleep_for(kGrace);
  end(1);
}

}  // namespace

BlackBox& black_box() {
  static BlackBox box;
  return box;
}

void prepare_last_words(int rank, int size, std::chrono::milliseconds deadline) {
  black_box().rank = rank;  // made before a handler may ask for it
  std::vector<int> others;
  for (int r = 0; r < size; ++r)
    if (r != rank) others.push_back(r);
  black_box().wait_begins("MPI_Init", others, 0, Clock::now() + std::max<Clock::duration>(deadline, kLaunch));
  (void)std::signal(SIGPIPE, SIG_IGN);
  handle(SIGALRM);
  block_our_signals();
  std::thread(watch, pthread_self()).detach();
  const sigset_t alarm = only(SIGALRM);
  pthread_sigmask(SIG_UNBLOCK, &alarm, nullptr);
}

void arm_last_words() {
  black_box().wait_ends();
  armed_process = getpid();
  handle(SIGTERM);
  const sigset_t set = our_signals();
  pthread_sigmask(SIG_UNBLOCK, &set, nullptr);
}

std::unique_ptr<MpiSession> start_mpi(const MpiOptions& options) {
  LauncherRank launched;
  try {
    launched = read_launcher_env(process_environment());
  } catch (const InvalidInput&) {  // what MPI itself says is what counts
    launched = {};
  }
  prepare_last_words(launched.rank, launched.size, options.barrier_deadline);
  auto session = std::make_unique<MpiSession>(options);
  arm_last_words();
  return session;
}

void leave_job(const topomoe::Failure& failure) {
  block_our_signals();
  black_box().wait_begins("MPI_Abort", {}, 0, Clock::now() + kToAbort - kOverdue);  // and kGrace
  speaking = true;
  if (!claimed.exchange(true)) {
    const std::string line = std::string("topomoe: ") + TransportError(failure).what() + "\n";
    (void)!write(STDERR_FILENO, line.data(), line.size());
    spoken = true;
  }
  linger();
  end_mpi_job();
  end(1);
}

void give_up(Communicator& job, const std::exception& e) {
  const topomoe::Failure failure = failure_of(e, job.rank());
  job.fail(failure);
  leave_job(failure);
}

// Stands before libc's for all that is linked here, Open MPI included. Returning from main does not come by.
extern "C" [[noreturn]] void _exit(int code) {
  if (code != 0 && armed_process != 0 && armed_process == getpid() &&
      speak("ended by the MPI library", Speak::if_something_is_known))
    linger();
  end(code);
}

}  // namespace topomoe::cli

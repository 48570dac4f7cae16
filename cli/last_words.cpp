#include "cli/last_words.hpp"

#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <csignal>
#include <string>

#include "runtime/communicator_mpi.hpp"
#include "runtime/distress.hpp"

namespace topomoe::cli {
namespace {

// mpirun sends SIGKILL a second after SIGTERM (odls_base_sigkill_timeout of Open MPI 4.1): done by then.
constexpr auto kPatience = std::chrono::milliseconds(400);
// Others are told at once, but may be in a kernel. Assumed.
constexpr auto kGrace = std::chrono::milliseconds(500);

std::atomic<bool> spoken{false};
pid_t armed_process = 0;  // a child between fork and exec has nothing to say

[[noreturn]] void end(int code) {
  while (true) syscall(SYS_exit_group, code);
}

// Async-signal-safe.
void speak(std::string_view why) {
  if (spoken.exchange(true)) return;
  BlackBox& box = black_box();
  const Wait wait = box.read();
  Distress* const distress = box.distress;
  const int culprit = distress != nullptr ? distress->ask(kPatience, Blame::the_silent) : -1;
  if (wait.count > 0 || culprit >= 0) {  // else there is nothing to say
    std::array<char, 1024> line{};
    const std::size_t length = write_last_words(line, box.rank, culprit, wait, why);
    (void)!write(STDERR_FILENO, line.data(), length);
  }
  if (distress != nullptr) distress->tell(culprit);
}

void on_sigterm(int) {
  speak("ended by SIGTERM");
  end(1);
}

}  // namespace

BlackBox& black_box() {
  static BlackBox box;
  return box;
}

void prepare_last_words() {
  (void)black_box();  // made before a handler may ask for it
  (void)std::signal(SIGPIPE, SIG_IGN);
  sigset_t set;
  sigemptyset(&set), sigaddset(&set, SIGTERM);
  pthread_sigmask(SIG_BLOCK, &set, nullptr);
}

void arm_last_words() {
  armed_process = getpid();
  struct sigaction action {};
  action.sa_handler = on_sigterm;
  sigaction(SIGTERM, &action, nullptr);
  sigset_t set;
  sigemptyset(&set), sigaddset(&set, SIGTERM);
  pthread_sigmask(SIG_UNBLOCK, &set, nullptr);
}

void leave_job(const topomoe::Failure& failure) {
  if (!spoken.exchange(true)) {
    const std::string line = std::string("topomoe: ") + TransportError(failure).what() + "\n";
    (void)!write(STDERR_FILENO, line.data(), line.size());
  }
  if (Distress* const distress = black_box().distress) distress->linger(kGrace);
  end_mpi_job();
  end(1);
}

// Stands before libc's for all that is linked here, Open MPI included. Returning from main does not come by.
extern "C" [[noreturn]] void _exit(int code) {
  if (code != 0 && armed_process != 0 && armed_process == getpid()) speak("ended by the MPI library");
  end(code);
}

}  // namespace topomoe::cli

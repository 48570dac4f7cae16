#include "tests/support/simgrid_child.hpp"

#include <sys/wait.h>
#include <unistd.h>

#include <exception>
#include <stdexcept>
#include <string>

namespace topomoe::test {
namespace {

void write_all(int file, const void* data, std::size_t bytes) {
  const char* at = static_cast<const char*>(data);
  while (bytes > 0) {
    const ssize_t wrote = ::write(file, at, bytes);
    if (wrote <= 0) ::_exit(3);
    at += wrote;
    bytes -= static_cast<std::size_t>(wrote);
  }
}

bool read_all(int file, void* data, std::size_t bytes) {
  char* at = static_cast<char*>(data);
  while (bytes > 0) {
    const ssize_t got = ::read(file, at, bytes);
    if (got <= 0) return false;
    at += got;
    bytes -= static_cast<std::size_t>(got);
  }
  return true;
}

}  // namespace

std::vector<double> in_simgrid_child(std::size_t count, const std::function<std::vector<double>()>& ask) {
  std::vector<double> answer(count);
  int ends[2];
  if (::pipe(ends) != 0) throw std::runtime_error("pipe");
  const pid_t child = ::fork();
  if (child < 0) throw std::runtime_error("fork");
  if (child == 0) {
    ::close(ends[0]);
    try {
      const std::vector<double> own = ask();
      write_all(ends[1], own.data(), own.size() * sizeof(double));
    } catch (const std::exception& error) {
      const std::string text = std::string("simgrid: ") + error.what() + "\n";
      write_all(2, text.data(), text.size());
      ::_exit(2);
    }
    ::_exit(0);
  }
  ::close(ends[1]);
  const bool whole = read_all(ends[0], answer.data(), answer.size() * sizeof(double));
  ::close(ends[0]);
  int status = 0;
  ::waitpid(child, &status, 0);
  if (!whole || !WIFEXITED(status) || WEXITSTATUS(status) != 0)
    throw std::runtime_error("SimGrid's process failed, status " + std::to_string(status));
  return answer;
}

}  // namespace topomoe::test

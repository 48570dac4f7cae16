// Work that may hang or crash, because a driver does, in a process of its own.
//
// fork without exec: what the child needs of locks and of CUDA must not be in use by other threads of the caller; a
// process that has initialised CUDA cannot use it in such a child. The child's standard output goes to stderr.
#pragma once

#include <chrono>
#include <functional>
#include <optional>
#include <string>

namespace topomoe {

struct ChildAnswer {
  std::optional<std::string> text;  // what the work returned
  std::string why;                  // else: what it threw, "no answer within 60 s", "ended by signal 11"
};

// The child is killed at the deadline. One that even then does not end (it waits in the kernel) is left behind.
ChildAnswer in_child(const std::function<std::string()>& work, std::chrono::milliseconds deadline);

}  // namespace topomoe

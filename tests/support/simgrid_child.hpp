// SimGrid allows one Engine a process and keeps global state: what asks it something works in a forked child.
#pragma once

#include <cstddef>
#include <functional>
#include <vector>

namespace topomoe::test {

// What `ask` answers in a child of its own: `count` numbers. Throws std::runtime_error where it fails or says fewer.
std::vector<double> in_simgrid_child(std::size_t count, const std::function<std::vector<double>()>& ask);

}  // namespace topomoe::test

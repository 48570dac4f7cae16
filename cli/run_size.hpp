// What `run` and `bench` ask before they execute a plan's layer on this machine: what is free.
#pragma once

#include <chrono>
#include <string>

#include "runtime/rehearsal.hpp"
#include "topomoe/communicator.hpp"

namespace topomoe::cli {

double free_bytes_here();
// Of the machines of all ranks the least; collective.
double least_free_bytes(Communicator& communicator, std::chrono::seconds deadline);

// Chosen sizes take a quarter of what is free, and at most the default: the same run on every machine that is large
// enough. Sizes that a user insists on may take most of it.
Budget budget_for(double free_bytes);

}  // namespace topomoe::cli

// A grid of device threads, run on one thread of the host: each is a fiber that runs until it waits (at a barrier, in
// a warp's shuffle or vote) or ends; which goes next, and which block, is drawn from a seed.
//
// Blocks run one after the other and share nothing but global memory: what the last one left in shared memory is
// overwritten. ThreadSanitizer takes device threads for threads, ordered by barriers, __syncwarp() and the grid's
// begin and end alone, so that a race is one whatever the order here.
// What stands still is an error, told with block, thread and line, not a hang: a barrier that not all threads reach, a
// warp operation whose mask names a lane that takes no part.
// Ignored: preemption (a loop that waits for another thread's store never ends), forward progress among blocks,
// __threadfence, time.
#pragma once

#include <cstddef>
#include <cstdint>
#include <source_location>
#include <string>

namespace topomoe::simt {

struct Index {
  unsigned x = 1, y = 1, z = 1;
};

struct Shape {
  Index grid, block;
  std::size_t shared_bytes = 0;  // dynamic
};

// Compute capability 8.0 to 10.0, from the CUDA programming guide's table of technical specifications.
constexpr unsigned kMostThreads = 1024;
constexpr std::size_t kSharedUnasked = 48 * 1024;  // more needs cudaFuncSetAttribute
constexpr std::size_t kMostShared = 227 * 1024;
constexpr unsigned kWarp = 32;

// Why no GPU would take such a launch of a kernel that may have so much dynamic shared memory; empty if one would.
std::string refusal(const Shape& shape, std::size_t most_shared_bytes);

// Runs body(arguments) in every thread of every block. Empty, or what stood still and where; the grid is then given
// up in the middle. Launches of several host threads wait for each other.
std::string launch(const Shape& shape, void (*body)(void*), void* arguments);

// Of the orders of threads and blocks from here on.
void set_seed(std::uint64_t seed);

// The rest is for device code, within launch().

struct Position {
  Index thread, block, block_size, grid_size;
};
extern Position here;

void* dynamic_shared();

using Place = std::source_location;

// How many threads of the block vote true, once all of them are at this place.
int barrier(const char* what, bool vote, const Place& place);

// What lanes of one warp do together, once all that `mask` names are at this place with this mask:
//   sync      nothing but wait, and see each other's memory
//   shuffle   get the value of lane `source`; all bits set where the mask leaves that lane out (undefined on a GPU)
//   ballot    get the mask of lanes whose value is not 0
//   match     get the mask of lanes whose value is one's own
enum class WarpOp : std::uint8_t { sync, shuffle, ballot, match };
std::uint64_t with_warp(WarpOp op, const char* what, unsigned mask, std::uint64_t value, unsigned source,
                        const Place& place);

// Position in the block, x fastest; the lane is that modulo kWarp.
unsigned linear_thread();

}  // namespace topomoe::simt

// Stands in for device_cuda.cpp where CUDA is not built in.
#include "topomoe/device_cuda.hpp"
#include "topomoe/error.hpp"

namespace topomoe {

std::unique_ptr<Device> make_cuda_device(int, const Allocator&) {
  throw MissingEnvironment("cuda: this topomoe was built without CUDA (configure with nvcc and TOPOMOE_WITH_CUDA=ON)");
}

EventPtr record_cuda_stream(void*) {
  throw MissingEnvironment("cuda: this topomoe was built without CUDA; a CPU has no streams");
}
void make_cuda_stream_wait(void*, const EventPtr&, std::chrono::steady_clock::time_point) {
  throw MissingEnvironment("cuda: this topomoe was built without CUDA; a CPU has no streams");
}

std::string cuda_description() { return "CUDA: not built in"; }

}  // namespace topomoe

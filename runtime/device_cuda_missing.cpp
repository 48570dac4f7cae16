// Stands in for device_cuda.cpp where CUDA is not built in.
#include "runtime/device_cuda.hpp"
#include "topomoe/error.hpp"

namespace topomoe {

std::unique_ptr<Device> make_cuda_device(int, const Allocator&) {
  throw MissingEnvironment("cuda: this topomoe was built without CUDA (configure with nvcc and TOPOMOE_WITH_CUDA=ON)");
}

std::string cuda_description() { return "CUDA: not built in"; }

}  // namespace topomoe

#include "tests/kernels/on_device.hpp"
#include "topomoe/device_cuda.hpp"

namespace topomoe::test {

std::unique_ptr<Device> device_under_test() { return make_cuda_device(0); }

}  // namespace topomoe::test

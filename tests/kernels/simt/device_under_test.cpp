// The CUDA device, on the harness: runtime/device_cuda.cpp itself, compiled against tests/support/simt/cuda. Every
// device draws another order of threads and blocks.
#include "tests/kernels/on_device.hpp"
#include "tests/support/simt/scheduler.hpp"
#include "topomoe/device_cuda.hpp"

namespace topomoe::test {

std::unique_ptr<Device> device_under_test() {
  static std::uint64_t seed = 0;
  simt::set_seed(++seed);
  return make_cuda_device(0);
}

}  // namespace topomoe::test

// A sanitizer shall refuse absurd allocations as malloc does, not end the test (device_test.cpp asks), and
// ThreadSanitizer need not sleep before it ends.
// NOLINTBEGIN: names are the sanitizers'
extern "C" const char* __asan_default_options();
extern "C" const char* __tsan_default_options();
extern "C" const char* __asan_default_options() { return "allocator_may_return_null=1"; }
extern "C" const char* __tsan_default_options() { return "allocator_may_return_null=1 atexit_sleep_ms=0"; }
// NOLINTEND

#include "tests/kernels/on_device.hpp"
#include "topomoe/device_cpu.hpp"

namespace topomoe::test {

std::unique_ptr<Device> device_under_test() { return make_cpu_device(); }

}  // namespace topomoe::test

// A sanitizer shall refuse absurd allocations as malloc does, not end the test (device_test.cpp asks).
// NOLINTBEGIN: names are the sanitizers'
extern "C" const char* __asan_default_options();
extern "C" const char* __tsan_default_options();
extern "C" const char* __asan_default_options() { return "allocator_may_return_null=1"; }
extern "C" const char* __tsan_default_options() { return "allocator_may_return_null=1"; }
// NOLINTEND

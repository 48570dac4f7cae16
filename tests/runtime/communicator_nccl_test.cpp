// GPUs of this machine as ranks, one thread each: the conformance suite over NCCL, and over inproc's copies.

#include "topomoe/communicator_nccl.hpp"

#include <gtest/gtest.h>

#include <iostream>

#include "tests/runtime/communicator_conformance.hpp"
#include "tests/support/soon.hpp"
#include "topomoe/communicator_inproc.hpp"
#include "topomoe/device_cpu.hpp"
#include "topomoe/device_cuda.hpp"
#include "topomoe/error.hpp"

namespace topomoe::testing {
namespace {

// Empty where there are `count` GPUs, else what is missing.
std::string lacks(int count) {
  try {
    for (int i = 0; i < count; ++i) make_cuda_device(i);
  } catch (const MissingEnvironment& e) {
    return e.what();
  }
  return "";
}

class Nccl : public ::testing::TestWithParam<std::tuple<int, ConformanceCase>> {};

TEST_P(Nccl, Conforms) {
  const auto& [ranks, which] = GetParam();
  if (const std::string why = lacks(ranks); !why.empty()) GTEST_SKIP() << why;
  run_inproc(ranks, [&, body = which.body](Communicator& host) {
    const auto device = make_cuda_device(host.rank());
    const auto nccl = make_nccl_communicator(*device, host.rank(), host.size(), broadcast_over(host));
    body(*nccl, *device);
    host.barrier();
  });
}

INSTANTIATE_TEST_SUITE_P(Communicator, Nccl,
                         ::testing::Combine(::testing::Values(1, 2, 4, 8), ::testing::ValuesIn(conformance_cases())),
                         [](const auto& test) {
                           return std::to_string(std::get<0>(test.param)) + "_" + std::get<1>(test.param).name;
                         });

class InprocCuda : public ::testing::TestWithParam<std::tuple<int, ConformanceCase>> {};

TEST_P(InprocCuda, Conforms) {
  const auto& [ranks, which] = GetParam();
  if (const std::string why = lacks(ranks); !why.empty()) GTEST_SKIP() << why;
  std::vector<std::unique_ptr<Device>> devices;  // a rank's copies may be on another's lane
  for (int r = 0; r < ranks; ++r) devices.push_back(make_cuda_device(r));
  run_inproc(ranks, [&, body = which.body](Communicator& c) {
    Device& device = *devices[static_cast<std::size_t>(c.rank())];
    use_device(c, device);
    body(c, device);
    device.synchronize(soon());
    c.barrier();
  });
}

INSTANTIATE_TEST_SUITE_P(Communicator, InprocCuda,
                         ::testing::Combine(::testing::Values(1, 2, 4, 8), ::testing::ValuesIn(conformance_cases())),
                         [](const auto& test) {
                           return std::to_string(std::get<0>(test.param)) + "_" + std::get<1>(test.param).name;
                         });

// Needs no GPU: that a program linked with NCCL and CUDA starts and can say so without a driver.
TEST(NcclDescription, NamesTheLoadedVersion) {
  EXPECT_NE(nccl_description().find("loaded 2."), std::string::npos) << nccl_description();
  std::cout << nccl_description() << "; " << cuda_description() << "\n";
}

TEST(NcclFactory, WrongDeviceOrRank_IsRefused) {
  const auto device = make_cpu_device();
  const Broadcast nobody = [](void*, std::size_t) { FAIL() << "asked too late"; };
  EXPECT_THROW(make_nccl_communicator(*device, 0, 1, nobody), InvalidInput);
  EXPECT_THROW(make_nccl_communicator(*device, 1, 1, nobody), InvalidInput);
  EXPECT_THROW(make_nccl_communicator(*device, nullptr), InvalidInput);
}

}  // namespace
}  // namespace topomoe::testing

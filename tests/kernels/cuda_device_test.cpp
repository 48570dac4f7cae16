// What make_cuda_device says, in every build and with or without a GPU.
#include "topomoe/device_cuda.hpp"

#include <gtest/gtest.h>

#include "topomoe/error.hpp"

namespace topomoe {
namespace {

TEST(CudaDevice, ImpossibleOrdinal_IsMissingEnvironment) {
  EXPECT_THROW(make_cuda_device(-1), MissingEnvironment);
  EXPECT_THROW(make_cuda_device(4096), MissingEnvironment);
}

TEST(CudaDevice, Description_IsOneLineWithoutADriverToo) {
  const std::string text = cuda_description();
  EXPECT_EQ(text.rfind("CUDA", 0), 0U) << text;
  EXPECT_EQ(text.find('\n'), std::string::npos) << text;
}

}  // namespace
}  // namespace topomoe

// DLPack: what fits is taken as it lies, what does not is told by name.

#include "runtime/dlpack.hpp"

#include <gtest/gtest.h>

#include <numeric>
#include <string>
#include <vector>

#include "topomoe/error.hpp"

namespace topomoe::testing {
namespace {

// A tensor of somebody else's: float32, shape [2, 3, 4] on the cpu unless changed.
struct Theirs {
  std::vector<float> data = std::vector<float>(24);
  std::vector<std::int64_t> shape{2, 3, 4}, strides{12, 4, 1};
  DLManagedTensor tensor{};
  Theirs() { tensor.dl_tensor = {data.data(), {kDLCPU, 0}, 3, {kDLFloat, 32, 1}, shape.data(), strides.data(), 0}; }
  DLTensor& t() { return tensor.dl_tensor; }
  std::string refused(const DlPlace& memory = MemorySpace::host) const {
    try {
      (void)read_dlpack(tensor, "tokens", DlElement::f32, 4, memory);
    } catch (const InvalidInput& e) {
      return e.what();
    }
    return "";
  }
};

TEST(DlpackIn, LeadingDimensionsAreRows) {
  Theirs x;
  const DlRows all = read_dlpack(x.tensor, "tokens", DlElement::f32, 4, MemorySpace::host);
  EXPECT_EQ(all.data, x.data.data());
  EXPECT_EQ(all.rows, 6);
  x.t().strides = nullptr;  // the same
  x.t().byte_offset = 8;
  x.shape = {1, 5, 4};
  const DlRows behind = read_dlpack(x.tensor, "tokens", DlElement::f32, 4, MemorySpace::host);
  EXPECT_EQ(behind.data, x.data.data() + 2);
  EXPECT_EQ(behind.rows, 5);
}

TEST(DlpackIn, StrideOfADimensionOfOne_AndOfNoRows_DoNotMatter) {
  Theirs x;
  x.shape = {1, 6, 4}, x.strides = {99, 4, 1};
  EXPECT_EQ(x.refused(), "");
  x.shape = {2, 0, 4}, x.strides = {7, 7, 7};
  x.t().data = nullptr;
  EXPECT_EQ(read_dlpack(x.tensor, "tokens", DlElement::f32, 4, MemorySpace::host).rows, 0);
}

TEST(DlpackIn, WhatDoesNotFit_IsNamed) {
  const auto refused = [](auto change) {
    Theirs x;
    change(x);
    return x.refused();
  };
  EXPECT_EQ(refused([](Theirs& x) { x.t().dtype = {kDLFloat, 64, 1}; }), "tokens: float64: float32 is needed");
  EXPECT_EQ(refused([](Theirs& x) { x.t().dtype = {kDLBfloat, 16, 1}; }), "tokens: bfloat16: float32 is needed");
  EXPECT_EQ(refused([](Theirs& x) { x.t().dtype.lanes = 4; }), "tokens: float32 x 4: float32 is needed");
  EXPECT_EQ(refused([](Theirs& x) { x.t().device = {kDLCUDA, 2}; }), "tokens: on cuda:2: the layer is on the cpu");
  EXPECT_EQ(refused([](Theirs& x) { x.shape[2] = 8; }), "tokens: [2, 3, 8]: [rows, 4] is needed");
  EXPECT_EQ(refused([](Theirs& x) { x.t().ndim = 1; }), "tokens: [2]: [rows, 4] is needed");
  EXPECT_EQ(refused([](Theirs& x) {
              x.strides = {4, 8, 1};
            }),  // transposed
            "tokens: [2, 3, 4] with strides [4, 8, 1]: rows must lie one after another: make it contiguous");
  EXPECT_EQ(refused([](Theirs& x) {
              x.strides = {24, 8, 2};
            }),
            "tokens: [2, 3, 4] with strides [24, 8, 2]: rows must lie one after another: make it contiguous");
  EXPECT_EQ(refused([](Theirs& x) { x.t().data = nullptr; }), "tokens: null: it has 6 rows");
  EXPECT_EQ(Theirs().refused(MemorySpace::cuda), "tokens: on the cpu: the layer is on cuda:0");
}

TEST(DlpackIn, GpusAreToldApart) {
  Theirs x;
  x.t().device = {kDLCUDA, 2};
  EXPECT_EQ(x.refused({MemorySpace::cuda, 2}), "");
  EXPECT_EQ(x.refused({MemorySpace::cuda, 1}), "tokens: on cuda:2: the layer is on cuda:1");
}

TEST(DlpackIn, PinnedAndManagedMemory_AreTheHosts) {
  Theirs x;
  x.t().device = {kDLCUDAHost, 0};
  EXPECT_EQ(x.refused(), "");
  EXPECT_NE(x.refused(MemorySpace::cuda), "");
  x.t().device = {kDLCUDAManaged, 0};
  EXPECT_EQ(x.refused(), "");
  EXPECT_EQ(x.refused(MemorySpace::cuda), "");
}

TEST(DlpackOut, ReadsAsWhatItIs_AndKeepsItsMemoryUntilDeleted) {
  auto memory = std::make_shared<std::vector<std::uint16_t>>(15);
  const std::weak_ptr<std::vector<std::uint16_t>> watched = memory;
  DLManagedTensor* out = make_dlpack(memory->data(), 3, 5, DlElement::bf16, MemorySpace::host, memory);
  const DlRows back = read_dlpack(*out, "batch", DlElement::bf16, 5, MemorySpace::host, true);
  EXPECT_EQ(back.data, memory->data());
  EXPECT_EQ(back.rows, 3);
  memory.reset();
  EXPECT_FALSE(watched.expired());
  out->deleter(out);
  EXPECT_TRUE(watched.expired());
}

TEST(DlpackOut, SaysWhichGpuItIsOn) {
  float value = 0;
  for (const int gpu : {0, 3}) {
    DLManagedTensor* out = make_dlpack(&value, 1, 1, DlElement::f32, {MemorySpace::cuda, gpu}, nullptr);
    EXPECT_EQ(out->dl_tensor.device.device_type, kDLCUDA);
    EXPECT_EQ(out->dl_tensor.device.device_id, gpu);
    out->deleter(out);
  }
}

TEST(DlpackVersioned, IsTakenOver_ReadOnlyStaysSo_OtherMajorVersionsAreRefused) {
  Theirs x;
  static int deleted;
  deleted = 0;
  DLManagedTensorVersioned versioned{
      {1, 3}, nullptr, [](DLManagedTensorVersioned*) { ++deleted; }, DLPACK_FLAG_BITMASK_READ_ONLY, x.t()};
  DLManagedTensor* tensor = unversioned(&versioned);
  EXPECT_EQ(read_dlpack(*tensor, "x", DlElement::f32, 4, MemorySpace::host).rows, 6);
  EXPECT_THROW((void)read_dlpack(*tensor, "x", DlElement::f32, 4, MemorySpace::host, true), InvalidInput);
  tensor->deleter(tensor);
  EXPECT_EQ(deleted, 1);
  versioned.flags = 0;
  tensor = unversioned(&versioned);
  EXPECT_EQ(read_dlpack(*tensor, "x", DlElement::f32, 4, MemorySpace::host, true).rows, 6);
  tensor->deleter(tensor);
  versioned.version.major = 2;
  EXPECT_THROW((void)unversioned(&versioned), InvalidInput);
  EXPECT_EQ(deleted, 2);
}

}  // namespace
}  // namespace topomoe::testing

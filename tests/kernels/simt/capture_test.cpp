// Bounded mode as a CUDA graph: between begin and end of capture nothing waits, allocates or touches host memory (the
// harness refuses it, as CUDA does), and launches follow whatever the buffers hold by then.
#include <cuda_runtime.h>

#include "kernels/cuda_error.hpp"
#include "tests/kernels/moe_pass.hpp"

namespace topomoe::test {
namespace {

class Capture : public OnDevice {
 protected:
  ~Capture() override {
    if (graph_ != nullptr) cudaGraphDestroy(graph_);
    if (exec_ != nullptr) cudaGraphExecDestroy(exec_);
  }
  template <class Work>
  void capture(const Work& work) {
    TOPOMOE_CUDA_TRY("begin", cudaStreamBeginCapture(stream(), cudaStreamCaptureModeGlobal));
    try {
      work();
    } catch (...) {
      cudaGraph_t broken = nullptr;
      cudaStreamEndCapture(stream(), &broken);
      cudaGraphDestroy(broken);
      throw;
    }
    TOPOMOE_CUDA_TRY("end", cudaStreamEndCapture(stream(), &graph_));
    TOPOMOE_CUDA_TRY("instantiate", cudaGraphInstantiate(&exec_, graph_, 0));
  }
  void launch_graph() {
    TOPOMOE_CUDA_TRY("launch", cudaGraphLaunch(exec_, stream()));
    device_->synchronize(soon());
  }
  cudaStream_t stream() { return static_cast<cudaStream_t>(device_->native_queue(Lane::compute)); }

  cudaGraph_t graph_ = nullptr;
  cudaGraphExec_t exec_ = nullptr;
};

TEST_F(Capture, BoundedMode_FollowsIdsThatItNeverSaw) {
  const MoeSizes sizes{.rows = 40, .hidden = 16, .ffn = 12, .k = 2, .experts = 6};
  const MoePass bounded(*device_, sizes, Ints(80, 0), 30, 3);
  bounded.run(*device_);  // cuBLAS makes its handle and workspace
  const Floats gradient(at(bounded.experts.shape.weights()), 0.25F);
  capture([&] { bounded.issue(*device_); });
  EXPECT_GT(graph_->calls.size(), 10U);
  for (const unsigned seed : {1U, 2U, 3U}) {
    const Ints ids = Random(seed).wholes(80, -1, 5);
    const MoePass exact(*device_, sizes, ids, 0, 3);
    exact.run(*device_);
    bounded.map.ids.write(ids);
    for (const Tensor* t : {&bounded.experts.w_gate_grad, &bounded.experts.w_up_grad, &bounded.experts.w_down_grad})
      t->write(gradient);
    launch_graph();
    EXPECT_EQ(bounded.map.read().overflow, 0);
    // The harness's products add in index order: padding changes nothing at all.
    EXPECT_TRUE(same_bits(bounded.out.read(), exact.out.read()));
    EXPECT_TRUE(same_bits(bounded.token_grad.read(), exact.token_grad.read()));
    EXPECT_TRUE(same_bits(bounded.experts.w_gate_grad.read(), exact.experts.w_gate_grad.read()));
    EXPECT_TRUE(same_bits(bounded.experts.w_up_grad.read(), exact.experts.w_up_grad.read()));
    EXPECT_TRUE(same_bits(bounded.experts.w_down_grad.read(), exact.experts.w_down_grad.read()));
  }
}

// That the test above could fail.
TEST_F(Capture, WaitingReadingOrAllocating_IsRefused) {
  const Tensor tensor_here = zeros(4);
  EXPECT_THROW(capture([&] { device_->synchronize(soon()); }), CudaError);
  EXPECT_THROW(capture([&] { tensor_here.read(); }), CudaError);
  EXPECT_THROW(capture([&] { tensor_here.write({1, 2, 3, 4}); }), CudaError);
  EXPECT_THROW(capture([&] { (void)zeros(4); }), CudaError);
}

// Exact mode has to know counts: with stale offsets it gives something else.
TEST_F(Capture, ExactMode_DoesNotFollow) {
  const MoeSizes sizes{.rows = 12, .hidden = 8, .ffn = 4, .k = 1, .experts = 3};
  const Ints before(12, 0);
  Ints after(12, 2);
  const MoePass exact(*device_, sizes, before, 0, 4), right(*device_, sizes, after, 0, 4);
  exact.run(*device_);
  right.run(*device_);
  capture([&] { exact.issue(*device_); });
  exact.map.ids.write(after);
  launch_graph();
  EXPECT_FALSE(same_bits(exact.out.read(), right.out.read()));
}

}  // namespace
}  // namespace topomoe::test

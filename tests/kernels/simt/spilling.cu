// For spills.sh alone: a kernel that must spill, and one that is never compiled.
namespace {

constexpr int kValues = 128;  // kept all the while in the 32 registers that two blocks of 1,024 threads leave to each

__global__ void __launch_bounds__(1024, 2) spilling(float* data, int rounds) {
  float value[kValues];
#pragma unroll
  for (int i = 0; i < kValues; ++i) value[i] = data[i * 1024 + threadIdx.x];
  for (int round = 0; round < rounds; ++round) {
#pragma unroll
    for (int i = 0; i < kValues; ++i) value[i] = value[i] * value[(i + 1) % kValues] + 1.0F;
  }
#pragma unroll
  for (int i = 0; i < kValues; ++i) data[i * 1024 + threadIdx.x] = value[i];
}

template <class T>
__global__ void never_compiled(T* data) {
  *data = 0;
}

}  // namespace

void launch_spilling(float* data) { spilling<<<1, 1024>>>(data, 3); }

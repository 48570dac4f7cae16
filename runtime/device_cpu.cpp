#include "topomoe/device_cpu.hpp"

#include <algorithm>
#include <cstring>
#include <new>

#include "kernels/convert_rows.hpp"
#include "kernels/cpu_context.hpp"
#include "kernels/expert_map.hpp"
#include "kernels/gather_rows.hpp"
#include "kernels/grouped_ffn.hpp"
#include "kernels/mix.hpp"
#include "kernels/ordered_sum.hpp"
#include "kernels/packed_ffn.hpp"
#include "kernels/router.hpp"
#include "kernels/sum_rows.hpp"
#include "runtime/caller_memory.hpp"
#include "topomoe/error.hpp"

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace topomoe {
namespace {

constexpr std::size_t kAlignment = 64;
constexpr std::size_t kLargePage = 2 << 20;  // x86-64, and arm64 with 4 KiB pages
// Assumed: from here on a page walk for every 4 KiB costs more than half a large page left unused.
constexpr std::size_t kLarge = 2 * kLargePage;

// Where the system gives large pages only to who asks for them. A wish: nothing depends on it.
void ask_for_large_pages(void* memory, std::size_t bytes) {
#if defined(__linux__)
  (void)madvise(memory, bytes / kLargePage * kLargePage, MADV_HUGEPAGE);
#else
  (void)memory, (void)bytes;
#endif
}

class CpuDevice final : public Device {
 public:
  CpuDevice(const Allocator& allocator, const CpuDeviceOptions& o)
      : allocator_(allocator),
        pool_(o.threads == 0 ? kernels::allowed_cpus() : o.threads),
        cpu_(o.isa.empty() ? kernels::best_isa() : kernels::isa_named(o.isa), &pool_) {}
  std::string name() const override { return "cpu"; }
  MemorySpace memory_space() const override { return MemorySpace::host; }

  DeviceMemory allocate(std::size_t bytes) override {
    if (allocator_) return take_memory(allocator_, bytes, kAlignment, name());
    const std::align_val_t alignment{bytes >= kLarge ? kLargePage : kAlignment};
    void* memory = ::operator new(bytes, alignment, std::nothrow);
    if (memory == nullptr) throw MissingEnvironment("cpu: no " + std::to_string(bytes) + " bytes of memory left");
    if (bytes >= kLarge) ask_for_large_pages(memory, bytes);
    return {static_cast<std::byte*>(memory), [alignment](std::byte* p) { ::operator delete(p, alignment); }};
  }
  void to_device(Lane, void* device, const void* host, std::size_t bytes) override { move(device, host, bytes); }
  void to_host(Lane, void* host, const void* device, std::size_t bytes,
               std::chrono::steady_clock::time_point) override {
    move(host, device, bytes);
  }
  void copy(Lane, void* to, const void* from, std::size_t bytes) override { move(to, from, bytes); }
  void zero(Lane, void* to, std::size_t bytes) override {
    in_pieces(bytes, [&](std::size_t first, std::size_t length) { std::memset(at(to, first), 0, length); });
  }

  EventPtr record(Lane) override { return nullptr; }
  void wait(Lane, const EventPtr& event, std::chrono::steady_clock::time_point deadline) override {
    if (event) event->wait(deadline);
  }
  void synchronize(std::chrono::steady_clock::time_point) override {}
  void* native_queue(Lane) override { return nullptr; }
  void set_progress(ProgressHook hook) override { cpu_.hook = hook; }

  void router(Lane, const kernels::Router& op) override { kernels::router_cpu(op, cpu_); }
  void router_backward(Lane, const kernels::RouterBackward& op) override { kernels::router_backward_cpu(op, cpu_); }
  void gather_rows(Lane, const kernels::GatherRows& op) override { kernels::gather_rows_cpu(op, cpu_); }
  void sum_rows(Lane, const kernels::SumRows& op) override { kernels::sum_rows_cpu(op, cpu_); }
  void row_dots(Lane, const kernels::RowDots& op) override { kernels::row_dots_cpu(op, cpu_); }
  void ordered_sum(Lane, const kernels::OrderedSum& op) override { kernels::ordered_sum_cpu(op, cpu_); }
  std::shared_ptr<const kernels::PackedFfn> pack_experts(const kernels::GroupedFfn& op) override {
    if (op.activation != kernels::Activation::swiglu) return nullptr;
    return std::make_shared<const kernels::PackedFfn>(op, cpu_.isa, pool_, cpu_.hook);
  }
  void grouped_ffn(Lane, const kernels::GroupedFfn& op) override {
    if (op.packed != nullptr)
      op.packed->forward(op, pool_, scratch_, cpu_.hook);
    else
      kernels::grouped_ffn_cpu(op, cpu_);
  }
  void grouped_ffn_dgrad(Lane, const kernels::GroupedFfnDgrad& op) override {
    kernels::grouped_ffn_dgrad_cpu(op, cpu_);
  }
  void grouped_ffn_wgrad(Lane, const kernels::GroupedFfnWgrad& op) override {
    kernels::grouped_ffn_wgrad_cpu(op, cpu_);
  }
  void mix(Lane, const kernels::Mix& op) override { kernels::mix_cpu(op, cpu_); }
  void mix_backward(Lane, const kernels::MixBackward& op) override { kernels::mix_backward_cpu(op, cpu_); }
  void expert_map(Lane, const kernels::ExpertMap& op) override { kernels::expert_map_cpu(op, cpu_); }
  void to_fp8(Lane, const kernels::ToFp8& op) override { kernels::to_fp8_cpu(op, cpu_); }
  void from_fp8(Lane, const kernels::FromFp8& op) override { kernels::from_fp8_cpu(op, cpu_); }

 private:
  static void* at(void* base, std::size_t offset) { return static_cast<std::byte*>(base) + offset; }
  static const void* at(const void* base, std::size_t offset) { return static_cast<const std::byte*>(base) + offset; }

  // Long copies make progress too: 1 MiB takes about 0.1 ms.
  template <class F>
  void in_pieces(std::size_t bytes, F&& f) {
    constexpr std::size_t kPiece = std::size_t{1} << 20;
    for (std::size_t first = 0; first < bytes; first += kPiece) {
      f(first, std::min(kPiece, bytes - first));
      if (bytes > kPiece) cpu_.hook();
    }
  }
  void move(void* to, const void* from, std::size_t bytes) {
    in_pieces(bytes,
              [&](std::size_t first, std::size_t length) { std::memcpy(at(to, first), at(from, first), length); });
  }

  Allocator allocator_;
  kernels::ThreadPool pool_;
  kernels::CpuContext cpu_;
  kernels::ProductScratch scratch_;
};

}  // namespace

std::unique_ptr<Device> make_cpu_device(const Allocator& allocator, const CpuDeviceOptions& options) {
  return std::make_unique<CpuDevice>(allocator, options);
}

}  // namespace topomoe

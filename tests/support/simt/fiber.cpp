#include "tests/support/simt/fiber.hpp"

#include <sys/mman.h>

#include <cstdint>
#include <new>

#include "tests/support/simt/sanitizers.hpp"

#if !defined(__x86_64__) || defined(TOPOMOE_SIMT_UCONTEXT)
#define TOPOMOE_SIMT_PORTABLE
#include <ucontext.h>
#endif

namespace topomoe::simt {
namespace {

constexpr std::size_t kPage = 4096;
constexpr std::size_t kStackBytes = 64 * kPage;  // kernels keep little on it; AddressSanitizer multiplies that

Fiber* running_fiber = nullptr;
Fiber* left_fiber = nullptr;  // by the last switch

}  // namespace

#ifdef TOPOMOE_SIMT_PORTABLE

struct Fiber::Context {
  ucontext_t saved;
  void prepare(std::byte* stack, void (*begin)()) {
    getcontext(&saved);
    saved.uc_stack.ss_sp = stack;
    saved.uc_stack.ss_size = kStackBytes;
    saved.uc_link = nullptr;
    makecontext(&saved, begin, 0);
  }
  static void exchange(Context& from, Context& to) { swapcontext(&from.saved, &to.saved); }
};

#else

// Saves what the System V ABI asks a callee to keep, and the stack pointer in *save; then takes all that from `to`.
extern "C" void topomoe_simt_switch(void** save, void* to);
asm(R"(
.text
.type topomoe_simt_switch, @function
topomoe_simt_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size topomoe_simt_switch, . - topomoe_simt_switch
)");

struct Fiber::Context {
  void* stack_pointer = nullptr;
  void prepare(std::byte* stack, void (*begin)()) {
    auto* top = reinterpret_cast<void**>(stack + kStackBytes);
    *--top = nullptr;  // begin()'s return address: debuggers and sanitizers stop here; 16 n - 8, as the ABI wants
    *--top = reinterpret_cast<void*>(begin);
    stack_pointer = top - 6;  // six registers of any value; rbp, the last, is the frame below: none
    for (int i = 1; i <= 6; ++i) *--top = nullptr;
  }
  static void exchange(Context& from, Context& to) { topomoe_simt_switch(&from.stack_pointer, to.stack_pointer); }
};

#endif

Fiber::Fiber() : context_(std::make_unique<Context>()) {
  if (sees_races()) identity_ = __tsan_get_current_fiber();
  running_fiber = this;
}

Fiber::Fiber(void (*body)()) : context_(std::make_unique<Context>()), body_(body) {
  // A page that faults lies below the stack.
  void* memory = mmap(nullptr, kPage + kStackBytes, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_STACK, -1, 0);
  if (memory == MAP_FAILED) throw std::bad_alloc();
  mprotect(memory, kPage, PROT_NONE);
  stack_ = static_cast<std::byte*>(memory) + kPage;
  bottom_ = stack_;
  size_ = kStackBytes;
  context_->prepare(stack_, begin);
  if (sees_races()) identity_ = __tsan_create_fiber(0);
}

Fiber::~Fiber() {
  if (stack_ == nullptr) return;
  if (sees_races()) __tsan_destroy_fiber(identity_);
  if (sees_addresses()) __asan_unpoison_memory_region(stack_, kStackBytes);
  munmap(stack_ - kPage, kPage + kStackBytes);
}

Fiber& Fiber::running() { return *running_fiber; }

void Fiber::switch_to(Fiber& to) {
  Fiber& from = *running_fiber;
  if (&from == &to) return;
  left_fiber = &from;
  running_fiber = &to;
  if (sees_addresses()) __sanitizer_start_switch_fiber(&from.fake_stack_, to.bottom_, to.size_);
  become(to.identity_);
  Context::exchange(*from.context_, *to.context_);
  arrived();
}

// AddressSanitizer says where the stack lies that was left: so the host's own becomes known.
void Fiber::arrived() {
  if (sees_addresses())
    __sanitizer_finish_switch_fiber(running_fiber->fake_stack_, &left_fiber->bottom_, &left_fiber->size_);
}

void Fiber::begin() {
  arrived();
  running_fiber->body_();
  __builtin_unreachable();
}

}  // namespace topomoe::simt

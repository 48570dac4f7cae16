// What sanitizers want to hear from code that switches stacks and recycles memory, as functions that do nothing in a
// program without that sanitizer: their names are weak, so that one object file serves programs of every kind.
//
// ThreadSanitizer: each fiber is a thread of its own; a switch orders nothing, release() and acquire() do.
// AddressSanitizer: it must know on which stack it is.
#pragma once

#include <cstddef>

// NOLINTBEGIN: names are the sanitizers' (sanitizer/tsan_interface.h, common_interface_defs.h, asan_interface.h; the
// last three of ThreadSanitizer are in its tsan_interface_java.h, which GCC does not install)
extern "C" {
[[gnu::weak]] void* __tsan_get_current_fiber();
[[gnu::weak]] void* __tsan_create_fiber(unsigned flags);
[[gnu::weak]] void __tsan_destroy_fiber(void* fiber);
[[gnu::weak]] void __tsan_switch_to_fiber(void* fiber, unsigned flags);
[[gnu::weak]] void __tsan_set_fiber_name(void* fiber, const char* name);
[[gnu::weak]] void __tsan_acquire(void* address);
[[gnu::weak]] void __tsan_release(void* address);
[[gnu::weak]] void __tsan_java_init(unsigned long begin, unsigned long size);
[[gnu::weak]] void __tsan_java_alloc(unsigned long begin, unsigned long size);
[[gnu::weak]] void __tsan_java_free(unsigned long begin, unsigned long size);
[[gnu::weak]] void __sanitizer_start_switch_fiber(void** fake_stack, const void* bottom, std::size_t size);
[[gnu::weak]] void __sanitizer_finish_switch_fiber(void* fake_stack, const void** bottom, std::size_t* size);
[[gnu::weak]] void __asan_poison_memory_region(const volatile void* memory, std::size_t size);
[[gnu::weak]] void __asan_unpoison_memory_region(const volatile void* memory, std::size_t size);
}
// NOLINTEND

namespace topomoe::simt {

// Whether this program was linked with -fsanitize=thread, -fsanitize=address.
inline bool sees_races() { return __tsan_create_fiber != nullptr; }
inline bool sees_addresses() { return __sanitizer_start_switch_fiber != nullptr; }

// Accesses from here on are those of `identity`; ordered after nothing.
inline void become(void* identity) {
  constexpr unsigned kOrdersNothing = 1;
  if (sees_races()) __tsan_switch_to_fiber(identity, kOrdersNothing);
}

// Forgets who accessed [begin, begin + size): its next use is by others. These are the calls by which a Java machine
// tells that its collector gave memory away.
inline void forget_accesses(void* begin, std::size_t size) {
  if (!sees_races() || size == 0) return;
  const auto at = reinterpret_cast<unsigned long>(begin);
  const unsigned long cells = (size + 7) / 8 * 8;
  __tsan_java_free(at, cells);
  __tsan_java_alloc(at, cells);
}

}  // namespace topomoe::simt

// glibc lets a program define malloc and its kin (malloc(3), "Replacing malloc"); shared libraries,
// Swift's runtime among them, then call these too. glibc's own stay reachable as __libc_*, so free
// needs no replacement.
#include "malloc_count.h"

#include <errno.h>
#include <stdatomic.h>
#include <stddef.h>

void *__libc_malloc(size_t byte_count);
void *__libc_calloc(size_t count, size_t byte_count);
void *__libc_realloc(void *old, size_t byte_count);
void *__libc_memalign(size_t alignment, size_t byte_count);

static atomic_uint_fast64_t calls;

static void note(void) { atomic_fetch_add_explicit(&calls, 1, memory_order_relaxed); }

uint64_t malloc_count(void) { return atomic_load_explicit(&calls, memory_order_relaxed); }

void *malloc(size_t byte_count) {
  note();
  return __libc_malloc(byte_count);
}

void *calloc(size_t count, size_t byte_count) {
  note();
  return __libc_calloc(count, byte_count);
}

void *realloc(void *old, size_t byte_count) {
  note();
  return __libc_realloc(old, byte_count);
}

void *memalign(size_t alignment, size_t byte_count) {
  note();
  return __libc_memalign(alignment, byte_count);
}

void *aligned_alloc(size_t alignment, size_t byte_count) {
  note();
  return __libc_memalign(alignment, byte_count);
}

int posix_memalign(void **out, size_t alignment, size_t byte_count) {
  note();
  void *memory = __libc_memalign(alignment, byte_count);
  if (!memory) return ENOMEM;
  *out = memory;
  return 0;
}

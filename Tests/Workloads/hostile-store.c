// Mode `hostile`: operations that change bytes of private memory, by every road.
#include "hostile.h"

#include <string.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <unistd.h>

// Not in the headers of every distribution that memdump builds on.
#ifndef MADV_PAGEOUT
#define MADV_PAGEOUT 21
#endif
#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ 22
#define MADV_POPULATE_WRITE 23
#endif
#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25
#endif
#ifndef MADV_GUARD_INSTALL
#define MADV_GUARD_INSTALL 102
#define MADV_GUARD_REMOVE 103
#endif

static char *address(struct hostile *h, size_t page) { return h->play + page * PAGE; }

static bool can(struct hostile *h, size_t page, unsigned char access) {
  return (h->state[page] & access) == access && !(h->state[page] & PAGE_GUARDED);
}

/// Calls `body` for each page of a random span that the mutator may access so.
static void each_page(struct hostile *h, size_t most, unsigned char access,
                      void (*body)(struct hostile *, char *)) {
  struct span span = hostile_span(h, most);
  for (size_t i = span.first; i < span.first + span.count; i++)
    if (can(h, i, access)) body(h, address(h, i));
}

static void flip_byte(struct hostile *h, char *page) { page[hostile_below(h, PAGE)] ^= 1; }
static void stamp_page(struct hostile *h, char *page) { hostile_stamp(h, page, PAGE); }

void op_store_byte(struct hostile *h) { each_page(h, 4, PAGE_WRITABLE, flip_byte); }
void op_store_pages(struct hostile *h) { each_page(h, 32, PAGE_WRITABLE, stamp_page); }

static void store_same(struct hostile *h, char *page) {
  (void)h;
  *(volatile char *)page = *(volatile char *)page;
}

static void store_zeros(struct hostile *h, char *page) {
  (void)h;
  memset(page, 0, PAGE);
}

void op_store_same(struct hostile *h) {
  each_page(h, 16, PAGE_READABLE | PAGE_WRITABLE, hostile_below(h, 4) ? store_same : store_zeros);
}

/// One of two versions: pages go back to what they were.
static void store_either(struct hostile *h, char *page) {
  fill(page, PAGE, (uintptr_t)page ^ hostile_below(h, 2));
}

void op_store_either(struct hostile *h) {
  struct span span = hostile_span(h, 16);
  // A few pages again and again, so that they meet their older versions.
  span.first %= 64;
  for (size_t i = span.first; i < span.first + span.count; i++)
    if (can(h, i, PAGE_WRITABLE)) store_either(h, address(h, i));
}

static void touch(struct hostile *h, char *page) {
  (void)h;
  (void)*(volatile char *)page;
}

/// Populates holes with the kernel's page of zeros.
void op_read_pages(struct hostile *h) { each_page(h, 32, PAGE_READABLE, touch); }

static void read_into(struct hostile *h, char *page) {
  off_t offset = (off_t)hostile_below(h, OBJECT_PAGES) * PAGE;
  if (pread(h->file, page, PAGE, offset) < 0) die("pread");
}

void op_read_call(struct hostile *h) { each_page(h, 4, PAGE_WRITABLE, read_into); }

/// The kernel pins the page and writes it past the page table: protected in between, it is written
/// unseen. Only where asked for, since no tracking by protection can see it.
static void write_remotely(struct hostile *h, char *page) {
  char bytes[256];
  hostile_stamp(h, bytes, sizeof bytes);
  struct iovec local = {bytes, sizeof bytes}, remote = {page + hostile_below(h, 15) * 256, 256};
  if (process_vm_writev(getpid(), &local, 1, &remote, 1, 0) < 0) die("process_vm_writev");
}

void op_remote_write(struct hostile *h) {
  each_page(h, 4, PAGE_WRITABLE, h->remote_writes ? write_remotely : flip_byte);
}

/// Takes pages away, now or at the kernel's leisure, or out of memory.
void op_drop(struct hostile *h) {
  static const int advice[] = {MADV_DONTNEED, MADV_DONTNEED, MADV_FREE, MADV_PAGEOUT,
                               MADV_COLD,     MADV_WILLNEED, MADV_REMOVE};
  struct span span = hostile_span(h, 24);
  int how = advice[hostile_below(h, sizeof advice / sizeof *advice)];
  madvise(address(h, span.first), span.count * PAGE, how);
}

void op_populate(struct hostile *h) {
  struct span span = hostile_span(h, 24);
  int how = hostile_below(h, 2) ? MADV_POPULATE_WRITE : MADV_POPULATE_READ;
  madvise(address(h, span.first), span.count * PAGE, how);
}

void op_collapse(struct hostile *h) {
  size_t half = hostile_below(h, 2) * PLAY_PAGES / 2;
  madvise(address(h, half), PLAY_PAGES / 2 * PAGE, MADV_COLLAPSE);
}

/// On private anonymous memory alone.
static void advise_guards(struct hostile *h, int advice, size_t most) {
  struct span span = hostile_span(h, most);
  for (size_t i = span.first; i < span.first + span.count; i++) {
    if (!(h->state[i] & PAGE_ANONYMOUS)) continue;
    if (madvise(address(h, i), PAGE, advice)) continue;
    if (advice == MADV_GUARD_INSTALL)
      h->state[i] |= PAGE_GUARDED;
    else
      h->state[i] &= (unsigned char)~PAGE_GUARDED;
  }
}

void op_guard(struct hostile *h) { advise_guards(h, MADV_GUARD_INSTALL, 8); }
void op_unguard(struct hostile *h) { advise_guards(h, MADV_GUARD_REMOVE, 64); }

/// A page somewhere in a large reservation: opened, written, perhaps closed or dropped again.
void op_sparse(struct hostile *h) {
  char *page = h->sparse + hostile_below(h, 64) * (64u << 20) + hostile_below(h, 4) * PAGE;
  if (mprotect(page, PAGE, PROT_READ | PROT_WRITE)) die("mprotect");
  hostile_stamp(h, page, PAGE);
  uint64_t then = hostile_below(h, 4);
  if (then == 0) madvise(page, PAGE, MADV_DONTNEED);
  if (then <= 2) mprotect(page, PAGE, PROT_NONE);
}

void op_huge(struct hostile *h) {
  if (!h->huge) return;
  if (hostile_below(h, 4))
    hostile_stamp(h, h->huge + hostile_below(h, HUGE_PAGE / PAGE) * PAGE, PAGE);
  else
    madvise(h->huge, HUGE_PAGE, MADV_DONTNEED);
}

__attribute__((noinline)) static uint64_t deepen(struct hostile *h, uint64_t frames) {
  volatile uint64_t frame[512];
  for (size_t i = 0; i < 512; i++) frame[i] = h->operations << 20 ^ frames << 10 ^ i;
  uint64_t below = frames ? deepen(h, frames - 1) : 0;
  return below + frame[frames];  // not a tail call
}

void op_stack(struct hostile *h) { deepen(h, hostile_below(h, 48)); }

void op_heap(struct hostile *h) {
  size_t held = (size_t)(h->heap_top - h->heap_bottom);
  if (held <= PAGE) return;
  char *at = h->heap_bottom + hostile_below(h, held - PAGE);
  hostile_stamp(h, (void *)(((uintptr_t)at + 7) & ~7ul), PAGE - 8);
}

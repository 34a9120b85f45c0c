// See mutate.h. Between two operations every page of the arena is mapped, private and anonymous.
#include "mutate.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>

struct run {
  char *start;
  size_t bytes;
};

struct mutable_arena make_mutable_arena(uint64_t pages) {
  struct mutable_arena arena = {map_private_huge_aligned(pages * PAGE), pages};
  fill(arena.start, pages * PAGE, 100);
  return arena;
}

static struct run choose_run(const struct mutable_arena *arena, uint64_t *random, uint64_t most) {
  uint64_t first = next_random(random) % arena->pages;
  uint64_t count = 1 + next_random(random) % most;
  if (count > arena->pages - first) count = arena->pages - first;
  return (struct run){arena->start + first * PAGE, count * PAGE};
}

static void map_again(struct run run) {
  void *start = mmap(run.start, run.bytes, PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
  if (start != run.start) die("mmap in the arena");
}

static void write_run(struct run run, uint64_t key) {
  if (mprotect(run.start, run.bytes, PROT_READ | PROT_WRITE)) die("mprotect");
  fill(run.start, run.bytes, key);
}

/// Moves a run's pages over those of another place. mremap wants one mapping with one protection.
static void move_run(struct run from, char *to) {
  bool overlap = to < from.start + from.bytes && from.start < to + from.bytes;
  if (overlap || mprotect(from.start, from.bytes, PROT_READ | PROT_WRITE)) return;
  void *moved = mremap(from.start, from.bytes, from.bytes, MREMAP_MAYMOVE | MREMAP_FIXED, to);
  // EFAULT: the run spans several mappings, which is no failure of the workload. But the kernel may
  // have unmapped the destination already.
  if (moved == MAP_FAILED) {
    map_again((struct run){to, from.bytes});
  } else {
    map_again(from);
  }
}

void mutate(struct mutable_arena *arena, uint64_t seed, uint64_t operations) {
  uint64_t random = seed;
  for (uint64_t i = 0; i < operations; i++) {
    struct run run = choose_run(arena, &random, 32);
    uint64_t key = next_random(&random);
    switch (next_random(&random) % 10) {
    case 0:
    case 1:
    case 2:
      write_run(run, key);
      break;
    case 3:  // a single byte: nothing but the page's dirty state tells
      if (mprotect(run.start, PAGE, PROT_READ | PROT_WRITE)) die("mprotect");
      run.start[key % PAGE] ^= 1;
      break;
    case 4:
      madvise(run.start, run.bytes, MADV_DONTNEED);
      break;
    case 5: {
      uint64_t room = arena->pages - run.bytes / PAGE + 1;
      move_run(run, arena->start + key % room * PAGE);
      break;
    }
    case 6:
      if (munmap(run.start, run.bytes)) die("munmap");
      map_again(run);
      if (key % 2) write_run(run, key);
      break;
    case 7:  // written, then out of reach of the target itself
      write_run(run, key);
      if (mprotect(run.start, run.bytes, key % 2 ? PROT_READ : PROT_NONE)) die("mprotect");
      break;
    case 8:
      if (mprotect(run.start, run.bytes, PROT_READ | PROT_WRITE)) die("mprotect");
      break;
    default:  // only read: populated by the zero page where it was a hole
      if (mprotect(run.start, run.bytes, PROT_READ | PROT_WRITE)) die("mprotect");
      for (size_t at = 0; at < run.bytes; at += PAGE) (void)*(volatile char *)(run.start + at);
    }
  }
}

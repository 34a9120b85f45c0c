// Mode `hostile`: a process that does, in random order, everything that could make a tracker of
// its memory lose a write. What it does follows from the seed; when it does it, does not.
//
// One thread, the mutator (the main one: the stack and the break are its own), rearranges the
// playground. It knows the state of every page there, so that no operation faults. Writers store to
// memory that keeps its place. A child process writes shared memory only while the mutator waits in
// vfork, where a freeze waits for it: what is frozen has nobody left who writes.
#include "hostile.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/shm.h>
#include <unistd.h>

static const struct {
  unsigned weight;
  void (*run)(struct hostile *);
} operations[] = {
    {40, op_store_byte},   {80, op_store_pages},   {20, op_store_same},    {20, op_read_pages},
    {40, op_store_either},
    {10, op_read_call},    {10, op_remote_write},  {40, op_drop},          {10, op_populate},
    {4, op_collapse},      {15, op_guard},         {15, op_unguard},       {10, op_sparse},        {5, op_huge},
    {10, op_stack},        {15, op_heap},          {15, op_unmap},         {60, op_map_again},
    {20, op_map_file},     {10, op_map_object},    {40, op_move},          {10, op_move_away},
    {20, op_grow},         {30, op_swap},          {30, op_protect},       {30, op_unprotect},
    {15, op_travel},       {30, op_home_store},
    {10, op_break},        {20, op_advise_range},  {20, op_object_store},  {20, op_object_pwrite},
    {15, op_object_drop},  {5, op_object_resize},  {20, op_file_store},    {15, op_file_drop},
    {10, op_file_pwrite},  {5, op_file_truncate},  {3, op_fork},           {4, op_child_store},
    {1, op_exec},          {4, op_thread},
};

uint64_t hostile_below(struct hostile *h, uint64_t limit) { return next_random(&h->random) % limit; }

void hostile_stamp(struct hostile *h, void *start, size_t bytes) {
  fill(start, bytes, h->operations << 20 ^ (uintptr_t)start);
}

struct span hostile_span(struct hostile *h, size_t most) {
  size_t first = hostile_below(h, PLAY_PAGES);
  size_t count = 1 + hostile_below(h, most);
  return (struct span){first, count < PLAY_PAGES - first ? count : PLAY_PAGES - first};
}

void hostile_reserve(char *start, size_t pages) {
  if (mmap(start, pages * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED,
           -1, 0) != start)
    die("mmap of a reservation");
}

void hostile_step(struct hostile *h) {
  unsigned sum = 0;
  for (size_t i = 0; i < sizeof operations / sizeof *operations; i++) sum += operations[i].weight;
  unsigned at = (unsigned)hostile_below(h, sum);
  size_t chosen = 0;
  while (at >= operations[chosen].weight) at -= operations[chosen++].weight;
  h->operations++;
  operations[chosen].run(h);
}

// MARK: What there is at first

static void *map_fd(int fd, size_t pages, int flags) {
  void *start = mmap(NULL, pages * PAGE, PROT_READ | PROT_WRITE, flags, fd, 0);
  if (start == MAP_FAILED) die("mmap");
  return start;
}

static void make_objects(struct hostile *h) {
  size_t bytes = OBJECT_PAGES * PAGE;
  int memfd = memfd_create("hostile", MFD_CLOEXEC);
  int tmpfs = open("/dev/shm", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
  int id = shmget(IPC_PRIVATE, bytes, IPC_CREAT | 0600);
  if (memfd < 0 || tmpfs < 0 || id < 0) die("shared memory");
  if (ftruncate(memfd, (off_t)bytes) || ftruncate(tmpfs, (off_t)bytes)) die("ftruncate");
  h->objects[0] = (struct object){
      "memfd", map_fd(memfd, OBJECT_PAGES, MAP_SHARED), map_fd(memfd, OBJECT_PAGES, MAP_SHARED),
      memfd};
  h->objects[1] = (struct object){
      "tmpfs", map_fd(tmpfs, OBJECT_PAGES, MAP_SHARED), map_fd(tmpfs, OBJECT_PAGES, MAP_SHARED),
      tmpfs};
  h->objects[2] = (struct object){"sysv", shmat(id, NULL, 0), shmat(id, NULL, 0), -1};
  // Removed at once: it lives while it is attached, and is never left behind.
  shmctl(id, IPC_RMID, NULL);
  if (h->objects[2].start == (char *)-1 || h->objects[2].twin == (char *)-1) die("shmat");
  char *shared = map_fd(-1, OBJECT_PAGES, MAP_SHARED | MAP_ANONYMOUS);
  // A length of 0 makes a second mapping of shared memory (mremap(2)).
  char *twin = mremap(shared, 0, bytes, MREMAP_MAYMOVE);
  if (twin == MAP_FAILED) die("mremap");
  h->objects[3] = (struct object){"shared", shared, twin, -1};
  for (size_t i = 0; i < 4; i++) hostile_stamp(h, h->objects[i].start, bytes / 2);
}

static void make_file(struct hostile *h, const char *directory) {
  h->file = open(directory, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
  if (h->file < 0) die("a file in %s", directory);
  char *content = map_private(OBJECT_PAGES * PAGE);
  hostile_stamp(h, content, OBJECT_PAGES * PAGE);
  if (write(h->file, content, OBJECT_PAGES * PAGE) != OBJECT_PAGES * PAGE) die("write");
  munmap(content, OBJECT_PAGES * PAGE);
  h->file_private = map_fd(h->file, OBJECT_PAGES, MAP_PRIVATE);
  h->file_shared = map_fd(h->file, OBJECT_PAGES, MAP_SHARED);
}

static void make_private(struct hostile *h) {
  h->play = map_private_huge_aligned(PLAY_PAGES * PAGE);
  // The first half may become huge pages.
  madvise(h->play, PLAY_PAGES / 2 * PAGE, MADV_HUGEPAGE);
  hostile_stamp(h, h->play, PLAY_PAGES * PAGE);
  memset(h->state, PAGE_MAPPED | PAGE_READABLE | PAGE_WRITABLE | PAGE_ANONYMOUS, PLAY_PAGES);
  h->third_place = map_private(PAGE);
  hostile_reserve(h->third_place, 1);
  h->steady = map_private(STEADY_PAGES * PAGE);
  hostile_stamp(h, h->steady, STEADY_PAGES * PAGE);
  // With a gap, so that nothing else joins it.
  h->home = (char *)map_private((3 * HOME_PAGES + 2) * PAGE) + PAGE;
  mprotect(h->home - PAGE, PAGE, PROT_NONE);
  mprotect(h->home + 3 * HOME_PAGES * PAGE, PAGE, PROT_NONE);
  hostile_stamp(h, h->home, 3 * HOME_PAGES * PAGE);
  h->inn = map_private(HOME_PAGES * PAGE);
  hostile_reserve(h->inn, HOME_PAGES);
  h->sparse = mmap(NULL, 4ull << 30, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (h->sparse == MAP_FAILED) die("mmap");
  h->huge = mmap(NULL, HUGE_PAGE, PROT_READ | PROT_WRITE,
                 MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB, -1, 0);
  if (h->huge == MAP_FAILED) h->huge = NULL;
  h->heap_bottom = h->heap_top = sbrk(0);
}

// MARK: Threads

/// Stores a byte here and there, for ever.
static void *write_steadily(void *argument) {
  char *steady = argument;
  uint64_t random = (uintptr_t)&random;
  for (;;) {
    steady[next_random(&random) % (STEADY_PAGES * PAGE)] ^= 1;
    sleep_ns(100000);
  }
  return NULL;
}

static void *answer(void *argument) {
  struct hostile *h = argument;
  char command[64];
  while (next_command(command, sizeof command)) {
    unsigned long long wanted = 0;
    if (sscanf(command, "until %llu", &wanted) == 1) {
      while (h->operations < wanted) sleep_ns(100000);
      say("operations=%lu", h->operations);
    } else {
      say("unknown");
    }
  }
  exit(0);
}

static void start(void *(*run)(void *), void *argument) {
  pthread_t thread;
  if (pthread_create(&thread, NULL, run, argument)) die("pthread_create");
  pthread_detach(thread);
}

int run_hostile(const struct options *options) {
  options_allow(options, (const char *const[]){"seed", "ops", "rate", "threads", "dir",
                                               "remote_writes", NULL});
  static struct hostile hostile;
  struct hostile *h = &hostile;
  h->random = option_number(options, "seed", 1);
  h->limit = option_number(options, "ops", UINT64_MAX);
  h->rate = option_number(options, "rate", 10000);
  h->remote_writes = option_number(options, "remote_writes", 0);
  make_private(h);
  make_objects(h);
  make_file(h, option_text(options, "dir", "/var/tmp"));
  uint64_t threads = option_number(options, "threads", 1);
  for (uint64_t i = 0; i < threads; i++) start(write_steadily, h->steady);
  start(answer, h);
  say("ready pid=%d play=0x%lx operations=0x%lx", getpid(), (uintptr_t)h->play,
      (uintptr_t)&h->operations);
  uint64_t began = monotonic_ns(), calm = 0;
  for (;;) {
    hostile_step(h);
    if (h->operations >= h->limit) {
      // Mildly, so that a dump of a slow machine still ends with something written.
      sleep_ns(2000000);
    } else {
      uint64_t due = began + (h->operations - calm) * 1000000000u / h->rate;
      uint64_t now = monotonic_ns();
      if (due > now + 200000) sleep_ns(due - now);
      // A freeze is no reason to hurry afterwards.
      if (now > due + 10000000) began = now, calm = h->operations;
    }
  }
}

// Mode `stamp`: every page says which version of itself it is, twice.
//
// A page, as 512 little-endian words:
//
//   0: magic  1: page number  2: generation  3: fill generation
//   4 ... 507: fill(key = mix(seed + mix(page number << 20 ^ fill generation)))
//   508 ... 511: words 0 to 3 again
//
// fill: word i (from 0) is 0x20706d75646d656d if i & 8 is 0, else the next value of splitmix64
// started with state `key`.
//
// Order of a write: words 0-3, fill (not in every write), words 508-511, then table[page], a 64-bit
// word with the generation. Each page belongs to one thread, so in a consistent image table[page]
// is the page's generation, except for at most one page a thread, where the page (or its head
// alone) is one generation ahead.
//
// The drop group (drop=1) is written by one more thread, which also throws its pages away. Bit 63
// of drop_table[page] says that the page was dropped after that generation and reads as zeros.
#include "workload.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define MAGIC 0x504d415453444d4du  // "MMDSTAMP"
#define DROPPED (1ull << 63)
#define FILL_WORDS (512 - 8)
#define TICK_NS 1000000u

struct group {
  uint64_t *words;  // the arena
  uint64_t *table;
  uint64_t pages;
};

static struct group arena, drops;
static uint64_t seed;
/// Differs between a process and its child, which write different pages.
static uint64_t salt;
static uint64_t rate_per_second;  // of all writers together; UINT64_MAX: as fast as possible
static uint64_t hot_pages, cold_percent, whole_percent, writer_count;
static bool moves;
static atomic_bool paused;
static atomic_uint parked;
static atomic_uint_fast64_t writes, dropped_runs, longest_gap;

static uint64_t fill_key(uint64_t page, uint64_t generation) {
  return mix(seed + mix(page << 20 ^ generation));
}

static void write_page(struct group *group, uint64_t page, bool whole) {
  uint64_t *words = group->words + page * 512;
  uint64_t generation = (group->table[page] & ~DROPPED) + 1;
  // A dropped page has nothing under its stamps.
  whole = whole || group->table[page] == 0 || (group->table[page] & DROPPED);
  uint64_t stamp[4] = {MAGIC, page, generation, whole ? generation : words[3]};
  memcpy(words, stamp, sizeof stamp);
  atomic_thread_fence(memory_order_release);
  if (whole) fill(words + 4, FILL_WORDS * 8, fill_key(page, generation));
  atomic_thread_fence(memory_order_release);
  memcpy(words + 508, stamp, sizeof stamp);
  atomic_thread_fence(memory_order_release);
  *(volatile uint64_t *)&group->table[page] = generation;
}

static bool page_is_good(const struct group *group, uint64_t page) {
  const uint64_t *words = group->words + page * 512;
  if (group->table[page] & DROPPED) {
    for (int i = 0; i < 512; i++)
      if (words[i]) return false;
    return true;
  }
  return words[0] == MAGIC && words[1] == page && words[2] == group->table[page] &&
         memcmp(words, words + 508, 32) == 0 &&
         is_filled(words + 4, FILL_WORDS * 8, fill_key(page, words[3]));
}

static void park_while_paused(void) {
  if (!atomic_load(&paused)) return;
  atomic_fetch_add(&parked, 1);
  while (atomic_load(&paused)) sleep_ns(TICK_NS);
  atomic_fetch_sub(&parked, 1);
}

/// One of this thread's pages: index % writer_count == thread.
static uint64_t choose_page(uint64_t thread, uint64_t *random) {
  uint64_t range = next_random(random) % 100 < cold_percent ? arena.pages : hot_pages;
  uint64_t page = next_random(random) % range;
  page = page - page % writer_count + thread;
  return page < range ? page : thread;
}

static void *writer(void *argument) {
  uint64_t thread = (uint64_t)(uintptr_t)argument;
  uint64_t random = seed ^ mix(thread + 1 + salt);
  uint64_t started = monotonic_ns(), done = 0;
  for (;;) {
    uint64_t due = UINT64_MAX;
    if (atomic_load(&paused)) {
      uint64_t before = monotonic_ns();
      park_while_paused();
      started += monotonic_ns() - before;
    }
    if (rate_per_second != UINT64_MAX) {
      uint64_t elapsed = monotonic_ns() - started;
      due = (uint64_t)((double)elapsed * 1e-9 * (double)rate_per_second / (double)writer_count);
      // After a long stop, go on at the rate instead of catching up in a burst.
      uint64_t most = rate_per_second / writer_count / 20 + 1;
      if (due > done + most) done = due - most;
    }
    for (int burst = 0; done < due && burst < 1024 && !atomic_load(&paused); burst++, done++) {
      write_page(&arena, choose_page(thread, &random), next_random(&random) % 100 < whole_percent);
      atomic_fetch_add(&writes, 1);
    }
    if (due != UINT64_MAX && done >= due) sleep_ns(TICK_NS);
  }
  return NULL;
}

/// Throws a run of pages of the drop group away, in one of the ways that programs do.
static void drop_run(uint64_t first, uint64_t count, uint64_t way) {
  char *start = (char *)(drops.words + first * 512);
  size_t bytes = count * PAGE;
  if (way % 3 == 0) {
    if (munmap(start, bytes)) die("munmap");
    void *again = mmap(start, bytes, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE, -1, 0);
    if (again != start) die("mmap of the pages just unmapped");
  } else if (madvise(start, bytes, MADV_DONTNEED)) {
    die("madvise(MADV_DONTNEED)");
  }
  for (uint64_t page = first; page < first + count; page++) {
    *(volatile uint64_t *)&drops.table[page] = drops.table[page] | DROPPED;
    // Sometimes read: then the page is populated, by the zero page.
    if (way % 5 == 0) (void)*(volatile uint64_t *)(drops.words + page * 512);
  }
}

/// Moves a page of the drop group away and back.
static void move_page(uint64_t page) {
  char *start = (char *)(drops.words + page * 512);
  char *away = map_private(PAGE);
  int fixed = MREMAP_MAYMOVE | MREMAP_FIXED;
  if (mremap(start, PAGE, PAGE, fixed, away) != away) die("mremap");
  // Seen there first, if it has not been seen before.
  (void)*(volatile uint64_t *)away;
  if (mremap(away, PAGE, PAGE, fixed, start) != start) die("mremap");
}

static void *dropper(void *unused) {
  (void)unused;
  uint64_t random = seed ^ mix(0xd309 + salt);
  for (;;) {
    park_while_paused();
    for (int i = 0; i < 4; i++) {
      uint64_t first = next_random(&random) % drops.pages;
      uint64_t count = 1 + next_random(&random) % 16;
      if (count > drops.pages - first) count = drops.pages - first;
      if (moves) move_page(next_random(&random) % drops.pages);
      if (next_random(&random) % 2) {
        drop_run(first, count, next_random(&random));
        atomic_fetch_add(&dropped_runs, 1);
      } else {
        for (uint64_t page = first; page < first + count; page++) write_page(&drops, page, true);
      }
    }
    sleep_ns(2 * TICK_NS);
  }
  return NULL;
}

/// Of a clock that goes on while the process is moved: CRIU lets CLOCK_MONOTONIC stand still meanwhile
/// (time namespaces).
static uint64_t outer_ns(void) {
  struct timespec now;
  clock_gettime(CLOCK_TAI, &now);
  return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/// gap=1 spins, and so sees every stop but also every preemption; gap=2 sleeps 50 us at a time.
static void *watcher(void *argument) {
  bool sleeps = argument != NULL;
  uint64_t last = outer_ns();
  for (;;) {
    if (sleeps) sleep_ns(50000);
    uint64_t now = outer_ns();
    uint64_t longest = atomic_load(&longest_gap);
    // It may be set back.
    while (now > last && now - last > longest &&
           !atomic_compare_exchange_weak(&longest_gap, &longest, now - last)) {
    }
    last = now;
  }
  return NULL;
}

static void start(void *(*body)(void *), void *argument) {
  pthread_t thread;
  int error = pthread_create(&thread, NULL, body, argument);
  if (error) {
    errno = error;
    die("pthread_create");
  }
}

static void pause_writers(unsigned count) {
  atomic_store(&paused, true);
  while (atomic_load(&parked) != count) sleep_ns(TICK_NS / 10);
}

static void check(void) {
  for (uint64_t page = 0; page < arena.pages; page++)
    if (!page_is_good(&arena, page)) {
      say("bad page %lu", page);
      return;
    }
  for (uint64_t page = 0; page < drops.pages; page++)
    if (!page_is_good(&drops, page)) {
      say("bad page %lu of the drop group", page);
      return;
    }
  say("ok");
}

static void make_group(struct group *group, uint64_t pages, const struct options *options) {
  const char *thp = option_text(options, "thp", NULL);
  group->pages = pages;
  group->words = map_private_huge_aligned(pages * PAGE);
  group->table = map_private((pages * 8 + PAGE - 1) / PAGE * PAGE);
  // Not given: as the machine's default is, without a flag on the mapping.
  if (thp) madvise(group->words, pages * PAGE, atoi(thp) ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
  for (uint64_t page = 0; page < pages; page++) write_page(group, page, true);
}

static void obey(const char *command, unsigned threads) {
  // `stop` lasts over a check; a check alone lets the writers go on.
  bool was_paused = atomic_load(&paused);
  if (strcmp(command, "check") == 0) {
    pause_writers(threads);
    check();
    atomic_store(&paused, was_paused);
  } else if (strcmp(command, "stop") == 0) {
    pause_writers(threads);
    say("ok");
  } else if (strcmp(command, "go") == 0) {
    atomic_store(&paused, false);
    say("ok");
  } else if (strcmp(command, "gap") == 0) {
    say("gap=%lu", (unsigned long)atomic_exchange(&longest_gap, 0));
  } else if (strcmp(command, "report") == 0) {
    say("writes=%lu drops=%lu", (unsigned long)atomic_load(&writes),
        (unsigned long)atomic_load(&dropped_runs));
  } else {
    say("unknown");
  }
}

static unsigned start_writers(void) {
  unsigned threads = 0;
  for (uint64_t i = 0; rate_per_second && i < writer_count; i++, threads++)
    start(writer, (void *)(uintptr_t)i);
  if (drops.pages) {
    start(dropper, NULL);
    threads++;
  }
  return threads;
}

/// A child that goes on with what it inherited, while its parent does the same.
static void fork_writers(unsigned threads) {
  // Nobody is in the midst of a page.
  pause_writers(threads);
  pid_t child = fork();
  if (child < 0) die("fork");
  atomic_store(&paused, false);
  if (child > 0) return;
  atomic_store(&parked, 0);
  salt = (uint64_t)getpid();
  start_writers();
}

int run_stamp(const struct options *options) {
  options_allow(options, (const char *const[]){"pages", "rate", "hot", "cold", "whole", "threads",
                                               "seed", "thp", "drop", "drop_pages", "moves", "gap",
                                               "detached", "log", "lifetime", NULL});
  uint64_t pages = option_number(options, "pages", 4096);
  uint64_t hot = option_number(options, "hot", 100);
  uint64_t gap = option_number(options, "gap", 0);
  bool unlimited = strcmp(option_text(options, "rate", "0"), "max") == 0;
  seed = option_number(options, "seed", 1);
  rate_per_second = unlimited ? UINT64_MAX : option_number(options, "rate", 0);
  cold_percent = option_number(options, "cold", 10);
  whole_percent = option_number(options, "whole", 50);
  writer_count = option_number(options, "threads", 1);
  if (hot > 100 || writer_count == 0 || pages < writer_count) {
    fprintf(stderr, "workload: needs hot <= 100, threads >= 1 and at least a page a thread\n");
    return 64;
  }
  hot_pages = pages * hot / 100;
  if (hot_pages < writer_count) hot_pages = writer_count;

  make_group(&arena, pages, options);
  if (option_number(options, "drop", 0)) {
    uint64_t fallback = pages / 8 < 16 ? 16 : pages / 8;
    make_group(&drops, option_number(options, "drop_pages", fallback), options);
  }
  moves = option_number(options, "moves", 0);
  unsigned threads = start_writers();
  if (gap) start(watcher, gap == 2 ? &arena : NULL);

  say("ready pid=%d arena=0x%lx pages=%lu table=0x%lx drop_arena=0x%lx drop_pages=%lu "
      "drop_table=0x%lx seed=%lu",
      getpid(), (uintptr_t)arena.words, arena.pages, (uintptr_t)arena.table,
      (uintptr_t)drops.words, drops.pages, (uintptr_t)drops.table, seed);
  if (is_detached()) {
    leave_standard_descriptors(options);
    for (int signal; (signal = next_detached_signal());)
      if (signal == SIGUSR1)
        obey("check", threads);
      else
        fork_writers(threads);
    return 0;
  }
  char command[128];
  while (next_command(command, sizeof command)) obey(command, threads);
  return 0;
}

// Mode `tree`: a process whose children come and go while it is dumped.
//
// Every process of the tree stamps pages of its own private arena (inherited over fork, and written
// from then on by each for itself) and of one shared object, without a pause of more than a
// millisecond, so that no two of them ever hold the same.
//
//   keep=N   children that stay, each with a child of its own if deep=1
//   churn=N  children that are always there, and live for `life_ms` each, some of them calling execve
//   storm=1  the churning children are born as fast as the machine can, and end at once
#include "workload.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

static char *arena, *shared;
static uint64_t arena_pages, shared_pages, life_ms;
static volatile sig_atomic_t is_ending;

static void end(int signal) {
  (void)signal;
  is_ending = 1;
}

/// Writes to its own and to the common memory for so long; 0 is for good.
static void stamp(uint64_t milliseconds) {
  uint64_t random = mix((uint64_t)getpid());
  uint64_t until = monotonic_ns() + milliseconds * 1000000u;
  while (!is_ending && (milliseconds == 0 || monotonic_ns() < until)) {
    for (int i = 0; i < 16; i++) {
      uint64_t page = next_random(&random) % arena_pages;
      *(volatile uint64_t *)(arena + page * PAGE + 8) = random;
      *(volatile uint64_t *)(arena + page * PAGE + PAGE - 8) = (uint64_t)getpid();
      page = next_random(&random) % shared_pages;
      *(volatile uint64_t *)(shared + page * PAGE + 8) = random ^ (uint64_t)getpid();
    }
    sleep_ns(500000);
  }
}

/// Ends with its parent, whoever that is.
static void follow(pid_t parent) {
  signal(SIGTERM, end);
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (getppid() != parent) _exit(0);
}

static pid_t start_child(void) {
  pid_t parent = getpid();
  pid_t child = fork();
  if (child < 0) {
    if (errno == EAGAIN) return 0;
    die("fork");
  }
  if (child == 0) follow(parent);
  return child;
}

static void keep_child(bool deep) {
  pid_t child = start_child();
  if (child != 0) return;
  if (deep) keep_child(false);
  stamp(0);
  _exit(0);
}

static void churn_child(unsigned turn, bool storms) {
  pid_t child = start_child();
  if (child != 0) return;
  if (storms) _exit(0);
  stamp(1 + mix(turn) % life_ms);
  if (turn % 4 == 3) {
    char milliseconds[32];
    snprintf(milliseconds, sizeof milliseconds, "%lu", (unsigned long)life_ms);
    execl("/proc/self/exe", "workload", "treeleaf", milliseconds, (char *)NULL);
  }
  _exit(0);
}

int run_treeleaf(const char *milliseconds) {
  arena_pages = shared_pages = 64;
  arena = map_private(arena_pages * PAGE);
  shared = map_private(shared_pages * PAGE);
  stamp(strtoul(milliseconds, NULL, 10));
  return 0;
}

/// A process of its own, so that the first one can listen to commands.
static void keep_churning(uint64_t count, bool storms) {
  if (start_child() != 0) return;
  unsigned turn = 0;
  uint64_t alive = 0;
  while (!is_ending) {
    for (; alive < count; alive++) churn_child(turn++, storms);
    while (waitpid(-1, NULL, storms ? 0 : WNOHANG) > 0) {
      alive--;
      if (storms) break;
    }
    if (!storms) sleep_ns(200000);
  }
  _exit(0);
}

int run_tree(const struct options *options) {
  options_allow(options, (const char *const[]){"pages", "shared", "keep", "deep", "churn", "life_ms",
                                               "storm", NULL});
  arena_pages = option_number(options, "pages", 1024);
  shared_pages = option_number(options, "shared", 256);
  life_ms = option_number(options, "life_ms", 40);
  uint64_t keep = option_number(options, "keep", 2), churn = option_number(options, "churn", 0);
  if (!arena_pages || !shared_pages || !life_ms) return 64;
  arena = map_private(arena_pages * PAGE);
  fill(arena, arena_pages * PAGE, 3);
  shared = mmap(NULL, shared_pages * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (shared == MAP_FAILED) die("mmap shared");
  fill(shared, shared_pages * PAGE, 5);
  for (uint64_t i = 0; i < keep; i++) keep_child(option_number(options, "deep", 0));
  if (churn) keep_churning(churn, option_number(options, "storm", 0));
  say("ready pid=%d arena=0x%lx pages=%lu shared=0x%lx shared_pages=%lu", getpid(),
      (uintptr_t)arena, arena_pages, (uintptr_t)shared, shared_pages);
  char command[128];
  while (next_command(command, sizeof command)) say("unknown");
  return 0;
}

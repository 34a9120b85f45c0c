// Modes whose process, not its memory, is the difficulty: `execer`, `exiter`, `leaderless`, `idle`,
// `zombie` and `vfork`.
#include "workload.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

static char *arena;
static uint64_t arena_bytes;

/// Dirties random pages without a pause, so that no dump of the arena is ever complete.
static void *scribble(void *argument) {
  uint64_t random = (uint64_t)(uintptr_t)argument + 1;
  for (;;) {
    for (int i = 0; i < 64; i++) {
      uint64_t page = next_random(&random) % (arena_bytes / PAGE);
      *(volatile uint64_t *)(arena + page * PAGE) = random;
    }
    sleep_ns(200000);
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

static void become_idle(void) {
  execl("/proc/self/exe", "workload", "idle", "pages=16", (char *)NULL);
  die("exec");
}

static void end(void) { _exit(0); }

static void (*act)(void);

static void *act_later(void *argument) {
  sleep_ns((uint64_t)(uintptr_t)argument * 1000000u);
  act();
  return NULL;
}

static void scribbling_arena(const struct options *options) {
  arena_bytes = option_number(options, "bytes", 64 << 20) / PAGE * PAGE;
  arena = map_private(arena_bytes);
  fill(arena, arena_bytes, 7);
  uint64_t threads = option_number(options, "threads", 2);
  for (uint64_t i = 0; i < threads; i++) start(scribble, (void *)(uintptr_t)i);
}

static int run_until(const struct options *options, const char *word, void (*action)(void)) {
  options_allow(options, (const char *const[]){"bytes", "threads", "after_ms", NULL});
  uint64_t after_ms = option_number(options, "after_ms", 0);
  act = action;
  scribbling_arena(options);
  say("ready pid=%d arena=0x%lx pages=%lu", getpid(), (uintptr_t)arena, arena_bytes / PAGE);
  if (after_ms) start(act_later, (void *)(uintptr_t)after_ms);
  char command[128];
  while (next_command(command, sizeof command)) {
    if (strcmp(command, word) == 0) action();
    say("unknown");
  }
  return 0;
}

int run_execer(const struct options *options) { return run_until(options, "exec", become_idle); }

int run_exiter(const struct options *options) { return run_until(options, "exit", end); }

static void *outlive_leader(void *argument) {
  pthread_join(*(pthread_t *)argument, NULL);
  // Joined means that the kernel has cleared the leader's tid: it is a zombie, or about to be one.
  say("ready pid=%d thread=%d arena=0x%lx pages=%lu", getpid(), gettid(), (uintptr_t)arena,
      arena_bytes / PAGE);
  wait_for_stdin_to_close();
  exit(0);
}

int run_leaderless(const struct options *options) {
  options_allow(options, (const char *const[]){"bytes", "threads", NULL});
  static pthread_t leader;
  leader = pthread_self();
  scribbling_arena(options);
  start(outlive_leader, &leader);
  pthread_exit(NULL);
}

// Address space as sanitizers, Go and Java take it: half of it without any access, half writable, and
// next to nothing of it ever touched.
static void reserve(uint64_t bytes) {
  if (!bytes) return;
  int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
  char *barred = mmap(NULL, bytes / 2, PROT_NONE, flags, -1, 0);
  char *open = mmap(NULL, bytes / 2, PROT_READ | PROT_WRITE, flags, -1, 0);
  if (barred == MAP_FAILED || open == MAP_FAILED) die("mmap reserve");
  // Huge pages would make the one page two megabytes.
  madvise(open, bytes / 2, MADV_NOHUGEPAGE);
  open[bytes / 4] = 1;
}

int run_idle(const struct options *options) {
  options_allow(options, (const char *const[]){"pages", "zero", "every", "reserve",
                                               NULL});
  uint64_t pages = option_number(options, "pages", 16);
  uint64_t zero_percent = option_number(options, "zero", 0);
  uint64_t every = option_number(options, "every", 1);
  char *memory = map_private((pages ? pages : 1) * PAGE);
  for (uint64_t page = 0; page < pages; page += every ? every : 1) {
    char *bytes = memory + page * PAGE;
    // In runs of 1 MiB; written, so that they are pages of its own and not the kernel's zero page.
    if (page / 256 * 61 % 100 < zero_percent)
      memset(bytes, 0, PAGE);
    else
      fill(bytes, PAGE, 11 + page);
  }
  reserve(option_number(options, "reserve", 0));
  say("ready pid=%d arena=0x%lx pages=%lu", getpid(), (uintptr_t)memory, pages);
  wait_for_stdin_to_close();
  return 0;
}

int run_zombie(const struct options *options) {
  options_allow(options, (const char *const[]){NULL});
  pid_t child = fork();
  if (child < 0) die("fork");
  if (child == 0) _exit(0);
  siginfo_t info;
  // WNOWAIT: seen to be dead, not reaped.
  if (waitid(P_PID, (id_t)child, &info, WEXITED | WNOWAIT)) die("waitid");
  say("ready pid=%d zombie=%d", getpid(), child);
  wait_for_stdin_to_close();
  return 0;
}

int run_vfork(const struct options *options) {
  options_allow(options, (const char *const[]){NULL});
  pid_t parent = getpid();
  pid_t child = vfork();
  if (child < 0) die("vfork");
  if (child == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    // In the parent's memory, while the parent waits in vfork.
    say("ready pid=%d child=%d", parent, getpid());
    wait_for_stdin_to_close();
    _exit(0);
  }
  return 0;
}

// Mode `threads`: threads blocked in the calls that a stop is known to disturb, each of which
// counts what it would not have seen without one.
#include "workload.h"

#include <errno.h>
#include <linux/futex.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum kind { NANOSLEEP, FUTEX, EPOLL, READ, POLL, PAUSE, TIMED_FUTEX, SLEEPER_KINDS, SPIN };

struct worker {
  enum kind kind;
  pthread_t thread;
  _Atomic int tid;
  int read_end, write_end;     // pipe, or eventfd twice
  atomic_uint futex;           // bumped by `wake`
  atomic_uint expected_wakes;  // how often `wake` was asked for
  atomic_uint wakes;           // how often it worked
  atomic_ulong ticks;
};

static struct worker *workers;
static uint64_t worker_count;
// In a report: calls that ended with EINTR, timeouts that ended early, and other surprises.
static atomic_ulong interrupted, early, wrong;

static void on_wake(int signal) { (void)signal; }

/// Judges the end of a wait that only `wake` may end.
static void judge_wake(struct worker *self, bool woke) {
  if (woke && atomic_load(&self->wakes) < atomic_load(&self->expected_wakes)) {
    atomic_fetch_add(&self->wakes, 1);
  } else if (!woke && errno == EINTR) {
    atomic_fetch_add(&interrupted, 1);
  } else {
    atomic_fetch_add(&wrong, 1);
  }
}

/// Judges the end of a wait that only its timeout may end.
static void judge_timeout(bool timed_out, int error, uint64_t started, uint64_t wanted) {
  if (timed_out) {
    if (monotonic_ns() - started < wanted) atomic_fetch_add(&early, 1);
  } else {
    atomic_fetch_add(error == EINTR ? &interrupted : &wrong, 1);
  }
}

static void drain(struct worker *self) {
  uint64_t bytes;
  if (read(self->read_end, &bytes, sizeof bytes) < 0) atomic_fetch_add(&wrong, 1);
}

static void wait_once(struct worker *self, int epoll) {
  uint64_t started = monotonic_ns();
  struct timespec interval = {0, 50000000};
  uint64_t wanted = (uint64_t)interval.tv_nsec;
  char byte;
  switch (self->kind) {
  case NANOSLEEP: {
    int error = clock_nanosleep(CLOCK_MONOTONIC, 0, &interval, NULL);
    judge_timeout(error == 0, error, started, wanted);
    break;
  }
  case POLL: {
    struct pollfd entry = {self->read_end, POLLIN, 0};
    int n = poll(&entry, 1, 50);
    judge_timeout(n == 0, errno, started, wanted);
    break;
  }
  case TIMED_FUTEX: {
    long n = syscall(SYS_futex, &self->futex, FUTEX_WAIT_PRIVATE, 0, &interval, NULL, 0);
    judge_timeout(n < 0 && errno == ETIMEDOUT, n < 0 ? errno : 0, started, wanted);
    break;
  }
  case FUTEX: {
    unsigned before = atomic_load(&self->wakes);
    long n = syscall(SYS_futex, &self->futex, FUTEX_WAIT_PRIVATE, before, NULL, NULL, 0);
    // EAGAIN: woken between two waits.
    judge_wake(self, n == 0 || errno == EAGAIN);
    break;
  }
  case EPOLL: {
    struct epoll_event event;
    int n = epoll_wait(epoll, &event, 1, -1);
    judge_wake(self, n == 1);
    if (n == 1) drain(self);
    break;
  }
  case READ:
    judge_wake(self, read(self->read_end, &byte, 1) == 1);
    break;
  case PAUSE:
    pause();
    // A handled signal ends pause() with EINTR too, so only the count can tell.
    judge_wake(self, atomic_load(&self->wakes) < atomic_load(&self->expected_wakes));
    break;
  default:
    for (volatile int i = 0; i < 100000; i++) {
    }
  }
  atomic_fetch_add(&self->ticks, 1);
}

static void *work(void *argument) {
  struct worker *self = argument;
  int epoll = -1;
  if (self->kind == EPOLL) {
    epoll = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event event = {.events = EPOLLIN};
    if (epoll < 0 || epoll_ctl(epoll, EPOLL_CTL_ADD, self->read_end, &event)) die("epoll");
  }
  atomic_store(&self->tid, gettid());
  for (;;) wait_once(self, epoll);
  return NULL;
}

static bool is_periodic(const struct worker *worker) {
  return worker->kind == NANOSLEEP || worker->kind == POLL || worker->kind == TIMED_FUTEX ||
         worker->kind == SPIN;
}

static bool has_thread(int tid) {
  char path[64];
  snprintf(path, sizeof path, "/proc/self/task/%d", tid);
  return access(path, F_OK) == 0;
}

/// Threads that exist and, where they should, get on. Waits up to two seconds for the latter.
static uint64_t count_alive(void) {
  unsigned long *before = calloc(worker_count, sizeof *before);
  if (!before) die("calloc");
  for (uint64_t i = 0; i < worker_count; i++) before[i] = atomic_load(&workers[i].ticks);
  uint64_t alive = 0;
  for (int attempt = 0; attempt < 200 && alive < worker_count; attempt++) {
    sleep_ns(10000000);
    alive = 0;
    for (uint64_t i = 0; i < worker_count; i++)
      alive += has_thread(workers[i].tid) &&
               (!is_periodic(&workers[i]) || atomic_load(&workers[i].ticks) > before[i]);
  }
  free(before);
  return alive;
}

/// Ends every endless wait once, to see that it still can be ended.
static void wake_all(void) {
  uint64_t of = 0, woken = 0;
  for (uint64_t i = 0; i < worker_count; i++) {
    struct worker *worker = &workers[i];
    if (is_periodic(worker)) continue;
    of++;
    atomic_fetch_add(&worker->expected_wakes, 1);
    uint64_t one = 1;
    bool sent = true;
    if (worker->kind == FUTEX) {
      atomic_fetch_add(&worker->futex, 1);
      syscall(SYS_futex, &worker->futex, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
    } else if (worker->kind == PAUSE) {
      sent = pthread_kill(worker->thread, SIGUSR2) == 0;
    } else {
      size_t count = worker->kind == EPOLL ? sizeof one : 1;
      sent = write(worker->write_end, &one, count) == (ssize_t)count;
    }
    if (!sent) die("wake");
  }
  for (int attempt = 0; attempt < 200 && woken < of; attempt++) {
    sleep_ns(10000000);
    woken = 0;
    for (uint64_t i = 0; i < worker_count; i++)
      woken += !is_periodic(&workers[i]) &&
               atomic_load(&workers[i].wakes) == atomic_load(&workers[i].expected_wakes);
  }
  say("woken=%lu of=%lu", woken, of);
}

static void open_ends(struct worker *worker) {
  if (worker->kind == READ || worker->kind == POLL) {
    int ends[2];
    if (pipe(ends)) die("pipe");
    worker->read_end = ends[0];
    worker->write_end = ends[1];
  } else if (worker->kind == EPOLL) {
    worker->read_end = worker->write_end = eventfd(0, 0);
    if (worker->read_end < 0) die("eventfd");
  }
}

static void begin(uint64_t spinners) {
  for (uint64_t i = 0; i < worker_count; i++) {
    workers[i].kind = i < spinners ? SPIN : (enum kind)((i - spinners) % SLEEPER_KINDS);
    open_ends(&workers[i]);
    // Many small stacks: thousands of threads must fit.
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, 64 << 10);
    int error = pthread_create(&workers[i].thread, &attributes, work, &workers[i]);
    pthread_attr_destroy(&attributes);
    if (error) {
      errno = error;
      die("pthread_create");
    }
  }
  for (uint64_t i = 0; i < worker_count; i++)
    while (!atomic_load(&workers[i].tid)) sleep_ns(100000);
  // Known only once: they have announced themselves, now let them block.
  sleep_ns(20000000);
}

int run_threads(const struct options *options) {
  options_allow(options, (const char *const[]){"count", "spinners", NULL});
  worker_count = option_number(options, "count", 2 * SLEEPER_KINDS);
  struct sigaction action = {.sa_handler = on_wake};  // no SA_RESTART: pause() must end
  sigaction(SIGUSR2, &action, NULL);
  workers = calloc(worker_count + 1, sizeof *workers);
  if (!workers) die("calloc");
  begin(option_number(options, "spinners", 1));
  say("ready pid=%d count=%lu", getpid(), worker_count);
  char command[128];
  while (next_command(command, sizeof command)) {
    if (strcmp(command, "report") == 0) {
      uint64_t alive = count_alive();
      say("eintr=%lu early=%lu wrong=%lu alive=%lu", (unsigned long)atomic_load(&interrupted),
          (unsigned long)atomic_load(&early), (unsigned long)atomic_load(&wrong), alive);
    } else if (strcmp(command, "wake") == 0) {
      wake_all();
    } else {
      say("unknown");
    }
  }
  return 0;
}

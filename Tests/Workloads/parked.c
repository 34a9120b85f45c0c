// Mode `parked`: threads that wait in one blocking call each, and judge how it ends.
//
// A call may end because its time is over, because `wake` woke it, or with EINTR because a handler
// ran; each is counted against what was asked for. Everything else is an anomaly.
#include "parked.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/msg.h>
#include <sys/sem.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static struct parked threads[64];
static int thread_count;
/// Handlers that ran in this thread.
static _Thread_local volatile sig_atomic_t own_handled;

static void on_signal(int signal) {
  own_handled++;
  on_counted_signal(signal);
}

/// A socket's time-out is counted in ticks. A virtual machine that gets no processor for a while has
/// them late and then all at once: by any clock but the one that goes on with them it is over early.
static bool is_in_ticks(const struct parked_call *call) {
  return strcmp(call->name, "recv_timed") == 0;
}

static uint64_t clock_of(const struct parked_call *call) {
  if (!is_in_ticks(call)) return monotonic_ns();
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
  return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static uint64_t shortest(const struct parked_call *call) {
  struct timespec tick = {0, 0};
  if (is_in_ticks(call)) clock_getres(CLOCK_MONOTONIC_COARSE, &tick);
  return (uint64_t)call->timeout_ms * 1000000u - (uint64_t)tick.tv_nsec;
}

static void judge(struct parked *self, long value, int error, uint64_t took, int ran) {
  const struct parked_call *call = self->call;
  bool asExpected = value == call->value && (value >= 0 || error == call->error);
  bool endsBySignal = call->error == EINTR;
  if (value == -1 && error == EINTR && ran > 0) {
    atomic_fetch_add(endsBySignal ? &self->returns : &self->interrupts, 1);
  } else if (value == -1 && error == EINTR) {
    anomaly("%s: EINTR without a handler", call->name);
  } else if (!asExpected) {
    anomaly("%s: returned %ld, errno %d", call->name, value, error);
  } else if (call->timeout_ms) {
    if (took < shortest(call))
      anomaly("%s: early, after %lu us", call->name, (unsigned long)(took / 1000));
  } else if (atomic_fetch_add(&self->returns, 1) >= atomic_load(&self->wakes)) {
    anomaly("%s: returned without being woken", call->name);
  }
}

static void *park(void *argument) {
  struct parked *self = argument;
  sigset_t blocked;
  sigemptyset(&blocked);
  sigaddset(&blocked, AWAITED_SIGNAL);
  pthread_sigmask(SIG_SETMASK, &blocked, NULL);
  remember_surroundings();
  self->thread = pthread_self();
  atomic_store(&self->tid, gettid());
  for (;;) {
    int before = own_handled;
    uint64_t began = clock_of(self->call);
    errno = 0;
    long value = self->call->wait(self);
    int error = errno;
    uint64_t took = clock_of(self->call) - began;
    judge(self, value, error, took, own_handled - before);
    check_thread_surroundings();
    atomic_fetch_add(&ticks, 1);
  }
  return NULL;
}

/// Whether the thread sleeps: it then is in its call, as it never sleeps elsewhere.
static bool is_asleep(const struct parked *self) {
  char path[64], line[512];
  snprintf(path, sizeof path, "/proc/self/task/%d/stat", self->tid);
  FILE *file = fopen(path, "re");
  if (!file) return false;
  size_t n = fread(line, 1, sizeof line - 1, file);
  fclose(file);
  line[n] = 0;
  const char *end = strrchr(line, ')');
  return end && end[2] == 'S';
}

static bool eventually(bool (*condition)(struct parked *), struct parked *self) {
  for (int i = 0; i < 20000; i++) {
    if (condition(self)) return true;
    sleep_ns(i < 100 ? 20000 : 500000);
  }
  return false;
}

static bool sleeps(struct parked *self) { return is_asleep(self); }
static bool has_returned(struct parked *self) {
  return atomic_load(&self->returns) == atomic_load(&self->wakes);
}
static bool was_interrupted(struct parked *self) {
  return atomic_load(&self->interrupts) >= atomic_load(&self->signals);
}

/// Ends every endless wait once.
static void wake_all(void) {
  for (int i = 0; i < thread_count; i++) {
    struct parked *self = &threads[i];
    if (!self->call->wake) continue;
    if (!eventually(sleeps, self)) anomaly("%s: never sleeps", self->call->name);
    atomic_fetch_add(&self->wakes, 1);
    self->call->wake(self);
    if (!eventually(has_returned, self)) anomaly("%s: not woken", self->call->name);
  }
  say("woken");
}

/// Interrupts every endless wait once with a handled signal, which must end it: the classic use of
/// alarm(2). A wait with a time-out may have been between two calls, so it is only sent the signal.
static void signal_all(void) {
  unsigned long before = atomic_load(&handled), sent = 0;
  for (int i = 0; i < thread_count; i++) {
    struct parked *self = &threads[i];
    bool endsBySignal = self->call->error == EINTR;
    if (!eventually(sleeps, self)) anomaly("%s: never sleeps", self->call->name);
    if (endsBySignal) atomic_fetch_add(&self->wakes, 1);
    if (!endsBySignal && !self->call->timeout_ms) atomic_fetch_add(&self->signals, 1);
    pthread_kill(self->thread, COUNTED_SIGNAL);
    sent++;
    if (!eventually(endsBySignal ? has_returned : was_interrupted, self))
      anomaly("%s: a handled signal did not end it", self->call->name);
  }
  for (int i = 0; i < 20000 && atomic_load(&handled) - before < sent; i++) sleep_ns(500000);
  if (atomic_load(&handled) - before != sent)
    anomaly("%lu signals, %lu handlers", sent, (unsigned long)atomic_load(&handled) - before);
  say("signalled");
}

static void remove_objects(void) {
  for (int i = 0; i < thread_count; i++) {
    const char *name = threads[i].call->name;
    if (strncmp(name, "sem", 3) == 0) semctl(threads[i].object, 0, IPC_RMID);
    if (strcmp(name, "msgrcv") == 0) msgctl(threads[i].object, IPC_RMID, NULL);
  }
}

/// Starts a process, no child of ours, that removes what outlives us: a killed process cannot, and
/// to remove a semaphore or a queue any earlier ends the waits for it.
static void start_cleaner(void) {
  int self = (int)syscall(SYS_pidfd_open, getpid(), 0);
  if (self < 0) die("pidfd_open");
  pid_t child = fork();
  if (child < 0) die("fork");
  if (child == 0) {
    if (fork() != 0) _exit(0);
    // No end of a pipe of the test's may stay open here.
    if (dup2(self, 0) != 0 || close_range(1, ~0u, 0)) _exit(1);
    struct pollfd ended = {.fd = 0, .events = POLLIN};
    while (poll(&ended, 1, -1) < 0 && errno == EINTR) {
    }
    remove_objects();
    _exit(0);
  }
  int status;
  if (waitpid(child, &status, 0) != child) die("waitpid");
  close(self);
}

static bool other_command(const char *command) {
  if (strcmp(command, "wake") == 0)
    wake_all();
  else if (strcmp(command, "signal") == 0)
    signal_all();
  else
    return false;
  return true;
}

static void *command(void *unused) {
  (void)unused;
  for (int i = 0; i < thread_count; i++) {
    while (!atomic_load(&threads[i].tid)) sleep_ns(100000);
    if (!eventually(sleeps, &threads[i])) anomaly("%s: never sleeps", threads[i].call->name);
  }
  say("ready pid=%d threads=%d", getpid(), thread_count);
  serve_reports(false, other_command);
  _exit(0);
}

int run_parked(const struct options *options) {
  options_allow(options, (const char *const[]){"call", NULL});
  const char *wanted = option_text(options, "call", "all");
  bool all = strcmp(wanted, "all") == 0;
  // No SA_RESTART: a handler ends any call.
  struct sigaction action = {.sa_handler = on_signal};
  sigaction(COUNTED_SIGNAL, &action, NULL);
  sigaction(WAKE_SIGNAL, &action, NULL);
  for (const struct parked_call *call = parked_calls; call->name; call++) {
    if (!all && strcmp(call->name, wanted)) continue;
    struct parked *self = &threads[thread_count++];
    self->call = call;
    if (call->prepare) call->prepare(self);
  }
  if (thread_count == 0) {
    fprintf(stderr, "workload: no call '%s'\n", wanted);
    return 64;
  }
  start_cleaner();
  for (int i = all ? 0 : 1; i < thread_count; i++) start_quiet_thread(park, &threads[i]);
  // A single call is waited for by the first thread: it is the one that memdump asks first.
  if (all) {
    sigset_t every;
    sigfillset(&every);
    // Blocked here, the SIGCHLD of a child that this thread forked would not be ignored any more: it
    // would interrupt another thread's call.
    sigdelset(&every, SIGCHLD);
    pthread_sigmask(SIG_SETMASK, &every, NULL);
    remember_surroundings();
    command(NULL);
  }
  start_quiet_thread(command, NULL);
  park(&threads[0]);
  return 0;
}

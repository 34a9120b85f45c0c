// The log of anomalies: see selfcheck.h.
#include "selfcheck.h"

#include <dirent.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

struct shared_log *shared_log;

__attribute__((constructor)) static void make_log(void) {
  shared_log = mmap(NULL, sizeof *shared_log, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS,
                    -1, 0);
  if (shared_log == MAP_FAILED) die("mmap");
}

static char descriptors[2048];
static pid_t described;  // whose they are
static _Thread_local sigset_t mask;
static _Thread_local stack_t alternate;
static _Thread_local bool is_remembered;

void anomaly(const char *format, ...) {
  if (atomic_fetch_add(&shared_log->anomalies, 1) > 0) return;
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(shared_log->first_text, sizeof shared_log->first_text, format, arguments);
  va_end(arguments);
  atomic_store(&shared_log->has_text, true);
}

void on_counted_signal(int signal) {
  (void)signal;
  atomic_fetch_add(&handled, 1);
}

/// The descriptors and what they are, on one line.
static void list_descriptors(char *out, size_t capacity) {
  size_t length = 0;
  out[0] = 0;
  // By number, since opening a directory to list them would be one more.
  for (int fd = 0; fd < 1024 && length + 128 < capacity; fd++) {
    char path[32], link[96];
    snprintf(path, sizeof path, "/proc/%d/fd/%d", described, fd);
    ssize_t n = readlink(path, link, sizeof link - 1);
    if (n < 0) continue;
    // Without the inode: some calls make their pipe anew, under the same number.
    link[n] = 0;
    link[strcspn(link, ":")] = 0;
    length += (size_t)snprintf(out + length, capacity - length, "%d %s, ", fd, link);
  }
}

void remember_descriptors(pid_t pid) {
  described = pid;
  list_descriptors(descriptors, sizeof descriptors);
}

void remember_surroundings(void) {
  if (descriptors[0] == 0) remember_descriptors(getpid());
  pthread_sigmask(SIG_SETMASK, NULL, &mask);
  sigaltstack(NULL, &alternate);
  is_remembered = true;
}

void check_thread_surroundings(void) {
  if (!is_remembered) return;
  sigset_t now;
  stack_t stack;
  pthread_sigmask(SIG_SETMASK, NULL, &now);
  // The kernel's 64 signals: glibc's set is longer.
  if (memcmp(&now, &mask, 8)) anomaly("the signal mask changed");
  sigaltstack(NULL, &stack);
  if (stack.ss_sp != alternate.ss_sp || stack.ss_size != alternate.ss_size ||
      stack.ss_flags != alternate.ss_flags)
    anomaly("the alternate stack changed");
}

static void check_descriptors(void) {
  static char now[sizeof descriptors];
  list_descriptors(now, sizeof now);
  if (strcmp(now, descriptors)) anomaly("descriptors changed: %.120s", now);
}

static void report(bool moves) {
  uint64_t before = atomic_load(&ticks);
  for (int i = 0; moves && i < 5000 && atomic_load(&ticks) == before; i++) sleep_ns(1000000);
  if (moves && atomic_load(&ticks) == before) anomaly("it stands still");
  if (descriptors[0]) check_descriptors();
  if (atomic_load(&shared_log->anomalies) == 0) {
    say("ok ticks=%lu handled=%lu", (unsigned long)atomic_load(&ticks),
        (unsigned long)atomic_load(&handled));
  } else {
    say("bad %lu %s", (unsigned long)atomic_load(&shared_log->anomalies),
        atomic_load(&shared_log->has_text) ? shared_log->first_text : "?");
  }
}

void serve_reports(bool moves, bool (*other)(const char *command)) {
  char command[128];
  while (next_command(command, sizeof command)) {
    if (strcmp(command, "report") == 0)
      report(moves);
    else if (!other || !other(command))
      say("unknown");
  }
}

void start_quiet_thread(void *(*body)(void *), void *argument) {
  sigset_t all, old;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &old);
  pthread_t thread;
  pthread_attr_t attributes;
  pthread_attr_init(&attributes);
  pthread_attr_setstacksize(&attributes, 64 << 10);
  int error = pthread_create(&thread, &attributes, body, argument);
  pthread_attr_destroy(&attributes);
  pthread_sigmask(SIG_SETMASK, &old, NULL);
  if (error) {
    errno = error;
    die("pthread_create");
  }
}

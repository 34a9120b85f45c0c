// Mode `state`: a process whose first thread (or only child) is in a peculiar state, and looks
// whether it stays as it was.
//
// KIND           what the pid of the ready line does
// -------------  --------------------------------------------------------------------------------
// spin           known values in all registers and the red zone, no system call (states_registers.c)
// call           the same across system calls
// second         `call` by a second thread while the first one spins, so that the second is asked
// vdso           asks for the time in the vDSO, which never goes back
// handler        spins inside a signal handler
// altstack       spins inside a signal handler on an alternate stack
// blocked        spins with all signals blocked and one pending
// trap_handled, trap_blocked, trap_ignored     spins with SIGTRAP in that state
// rseq           spins in restartable sequences
// stepping       steps itself: the trap flag is set, and a handler counts the SIGTRAPs
// smallstack     spins on a stack of 3 KiB, with nothing below it
// sharedstack    spins on a stack of 3 KiB, with memory of another thread below it, in one mapping with
//                its thread-local storage
// deepstack      at the end of a deep stack, which other threads use
// strict         seccomp(2) in strict mode: read, write and exit only
// stopped        stopped by SIGSTOP; the parent counts its SIGCHLDs. Command `continue` -> continued
// nofile         no descriptor free below the soft RLIMIT_NOFILE
// nofile_hard    nor below the hard one
// namespaces     in other user, pid, mount, net and ipc namespaces
// nonroot        another user
// forker         other threads fork; children look for descriptors that are not theirs
// deepening      waits for a vfork child until `deepen` -> deep; uses its stack, deeper than ever
//                before, until `return` -> returned
// altstacks      the first thread waits to write to a pipe, the only other one is on an alternate stack
// vforked        waits a second for a vfork child, while another thread waits in epoll_wait
// shortwrite     in a write to a pipe that is partly done: a stop cuts it short (a limit)
#include "states.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

void *serve_state(void *other) {
  serve_reports(true, (bool (*)(const char *))other);
  _exit(0);
}

/// Announces this process, and answers from a thread of its own.
static void announce_here(void) {
  remember_surroundings();
  start_quiet_thread(serve_state, NULL);
  say("ready pid=%d", getpid());
}

/// Goes on in a child that has this thread only, so that nobody can choose another one, and answers
/// for it from this process.
void announce_state(void) {
  remember_surroundings();
  pid_t child = fork();
  if (child < 0) die("fork");
  if (child == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    return;
  }
  while (!atomic_load(&ticks)) sleep_ns(100000);
  remember_descriptors(child);
  say("ready pid=%d", child);
  serve_state(NULL);
}

// MARK: Signals

static volatile bool in_handler;
unsigned char alternate_memory[ALTERNATE_BYTES];

void spin_in_handler(int signal, siginfo_t *info, void *context) {
  (void)context;
  stack_t stack;
  sigaltstack(NULL, &stack);
  int flags = stack.ss_flags;
  siginfo_t before = *info;
  in_handler = true;
  for (;;) {
    for (volatile int i = 0; i < 20000; i++) {
    }
    sigaltstack(NULL, &stack);
    if (stack.ss_flags != flags) anomaly("the alternate stack changed in a handler");
    if (memcmp(&before, info, sizeof before) || signal != SIGUSR2) anomaly("siginfo changed");
    for (size_t i = 0; i < 4096; i++)
      if (alternate_memory[i] != 0x5a) anomaly("something below the alternate stack changed");
    atomic_fetch_add(&ticks, 1);
  }
}

static void run_handler(bool alternate) {
  memset(alternate_memory, 0x5a, sizeof alternate_memory);
  stack_t stack = {.ss_sp = alternate_memory + 4096, .ss_size = 65536};
  if (alternate) sigaltstack(&stack, NULL);
  struct sigaction action = {.sa_sigaction = spin_in_handler,
                             .sa_flags = SA_SIGINFO | (alternate ? SA_ONSTACK : 0)};
  sigaction(SIGUSR2, &action, NULL);
  announce_state();
  raise(SIGUSR2);
}

static void run_blocked(void) {
  sigset_t all, pending;
  sigfillset(&all);
  sigprocmask(SIG_SETMASK, &all, NULL);
  announce_state();
  raise(SIGUSR1);
  for (;;) {
    for (volatile int i = 0; i < 20000; i++) {
    }
    check_thread_surroundings();
    sigpending(&pending);
    if (!sigismember(&pending, SIGUSR1)) anomaly("the pending signal is gone");
    atomic_fetch_add(&ticks, 1);
  }
}

static void run_trap(const char *how) {
  struct sigaction action = {.sa_handler = on_counted_signal};
  if (strcmp(how, "ignored") == 0) action.sa_handler = SIG_IGN;
  sigaction(SIGTRAP, &action, NULL);
  sigset_t set, pending;
  sigemptyset(&set);
  sigaddset(&set, SIGTRAP);
  if (strcmp(how, "blocked") == 0) sigprocmask(SIG_BLOCK, &set, NULL);
  announce_state();
  unsigned long expected = 0;
  for (;;) {
    for (volatile int i = 0; i < 20000; i++) {
    }
    check_thread_surroundings();
    sigpending(&pending);
    if (sigismember(&pending, SIGTRAP)) anomaly("a SIGTRAP is pending");
    if (strcmp(how, "handled") == 0) {
      raise(SIGTRAP);
      expected++;
    }
    if (atomic_load(&handled) != expected)
      anomaly("%lu SIGTRAPs, not %lu", (unsigned long)atomic_load(&handled), expected);
    atomic_fetch_add(&ticks, 1);
  }
}

// MARK: User mode

static void run_vdso(void) {
  announce_state();
  uint64_t last = 0;
  for (uint64_t i = 0;; i++) {
    uint64_t now = monotonic_ns();
    if (now < last) anomaly("time went back");
    last = now;
    if (i % 10000 == 0) atomic_fetch_add(&ticks, 1);
  }
}

static void *watch_canaries(void *unused) {
  (void)unused;
  for (;;) {
    // Without a pause: what somebody stores there and puts back is there for microseconds.
    const volatile unsigned char *above = small_stack + SMALL_STACK_CANARY + small_stack_bytes;
    const volatile unsigned char *below = small_stack;
    for (size_t i = 0; i < SMALL_STACK_CANARY; i++)
      if (below[i] != 0xc5 || above[i] != 0xc5)
        anomaly("a canary beside the small stack died");
  }
  return NULL;
}

static volatile uint64_t *deep_words;

static void *use_deep_words(void *unused) {
  (void)unused;
  uint64_t value = 0;
  for (uint64_t i = 0;; i = (i + 1) % 512) {
    if (deep_words[i] != value) anomaly("a word on the deep stack changed");
    deep_words[i] = value + 1;
    if (i == 511) {
      value++;
      atomic_fetch_add(&ticks, 1);
    }
  }
  return NULL;
}

static void run_deep(void) {
  // Grows the stack mapping down to a page of these words, and then rests just below them.
  volatile uint64_t words[(1 << 20) / 8];
  for (size_t i = 0; i < sizeof words / 8; i++) words[i] = 0;
  deep_words = words;
  announce_state();
  start_quiet_thread(use_deep_words, NULL);
  for (;;) pause();
}

// MARK: Processes

/// Forks a child that lives as long as this process, and says that it is the target.
static pid_t fork_target(void (*body)(void)) {
  pid_t parent = getpid();
  pid_t child = fork();
  if (child < 0) die("fork");
  if (child == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent && getppid() != 0) _exit(1);
    body();
    _exit(1);
  }
  while (!atomic_load(&ticks)) sleep_ns(100000);
  remember_descriptors(child);
  say("ready pid=%d", child);
  return child;
}

static void be_strict(void) {
  if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_STRICT)) _exit(1);
  spin_checking_registers();
}

static void be_nobody(void) {
  if (setgroups(0, NULL) || setresgid(65534, 65534, 65534) || setresuid(65534, 65534, 65534))
    _exit(1);
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  call_checking_registers();
}

static pid_t stopped_child;
static atomic_int child_signals;

static void on_child(int signal) {
  (void)signal;
  atomic_fetch_add(&child_signals, 1);
}
static void be_stopped(void) {
  struct sigaction action = {.sa_handler = on_counted_signal};
  sigaction(SIGCONT, &action, NULL);
  atomic_fetch_add(&ticks, 1);
  raise(SIGSTOP);
  if (atomic_load(&handled) != 1) anomaly("%lu SIGCONTs", (unsigned long)atomic_load(&handled));
  call_checking_registers();
}
static char state_of(pid_t pid) {
  char path[64], line[512];
  snprintf(path, sizeof path, "/proc/%d/stat", pid);
  FILE *file = fopen(path, "re");
  if (!file) return '?';
  size_t n = fread(line, 1, sizeof line - 1, file);
  fclose(file);
  line[n] = 0;
  const char *end = strrchr(line, ')');
  return end ? end[2] : '?';
}
static bool stopped_command(const char *command) {
  if (strcmp(command, "look") == 0) {
    if (state_of(stopped_child) != 'T') anomaly("it is %c, not stopped", state_of(stopped_child));
    if (atomic_load(&child_signals) != 1) anomaly("%d SIGCHLDs", atomic_load(&child_signals));
    say("looked");
    return true;
  }
  if (strcmp(command, "continue")) return false;
  kill(stopped_child, SIGCONT);
  int status;
  if (waitpid(stopped_child, &status, WCONTINUED) != stopped_child || !WIFCONTINUED(status))
    anomaly("not continued");
  say("continued");
  return true;
}
static void run_stopped(void) {
  struct sigaction action = {.sa_handler = on_child, .sa_flags = SA_RESTART};
  sigaction(SIGCHLD, &action, NULL);
  stopped_child = fork_target(be_stopped);
  int status;
  if (waitpid(stopped_child, &status, WUNTRACED) != stopped_child || !WIFSTOPPED(status))
    die("waitpid");
  serve_reports(false, stopped_command);
  _exit(0);
}

static void run_namespaces(void) {
  if (unshare(CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWIPC))
    die("unshare");
  fork_target(call_checking_registers);
  serve_state(NULL);
}

static void run_nofile(rlim_t hard) {
  struct rlimit limit = {64, hard}, now;
  if (setrlimit(RLIMIT_NOFILE, &limit)) die("setrlimit");
  while (dup(0) >= 0) {
  }
  announce_here();
  for (;;) {
    if (getrlimit(RLIMIT_NOFILE, &now) || memcmp(&limit, &now, sizeof now))
      anomaly("RLIMIT_NOFILE is %lu", (unsigned long)now.rlim_cur);
    if (dup(0) >= 0 || errno != EMFILE) anomaly("a descriptor is free");
    atomic_fetch_add(&ticks, 1);
  }
}

static void *fork_again_and_again(void *unused) {
  (void)unused;
  for (;;) {
    pid_t child = fork();
    if (child == 0) {
      // Longer than an injection takes: what it inherited stays, if memdump does not see to it.
      sleep_ns(3000000);
      char path[32], link[64];
      for (int fd = 3; fd < 64; fd++) {
        snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
        ssize_t n = readlink(path, link, sizeof link - 1);
        if (n < 0) continue;
        link[n] = 0;
        if (strstr(link, "userfaultfd")) _exit(7);
      }
      _exit(0);
    }
    int status = 0;
    if (waitpid(child, &status, 0) != child) anomaly("waitpid");
    // A limit, counted where tests see it, as a handler would be.
    if (WIFEXITED(status) && WEXITSTATUS(status) == 7) atomic_fetch_add(&handled, 1);
    else if (status) anomaly("a child ended with %x", status);
    atomic_fetch_add(&ticks, 1);
  }
  return NULL;
}

void *wait_in_epoll(void *unused) {
  (void)unused;
  int epoll = epoll_create1(EPOLL_CLOEXEC);
  struct epoll_event event;
  for (;;) {
    int n = epoll_wait(epoll, &event, 1, -1);
    anomaly("epoll_wait: %d, errno %d", n, errno);
  }
  return NULL;
}

static bool vfork_command(const char *command);
static atomic_bool wants_vfork, has_child;

static void run_vforked(void) {
  // Older and younger than the thread that will not stop.
  start_quiet_thread(wait_in_epoll, NULL);
  sleep_ns(20000000);
  start_quiet_thread(serve_state, vfork_command);
  say("ready pid=%d", getpid());
  struct timespec second = {1, 0};
  for (;;) {
    while (!atomic_load(&wants_vfork)) {
      sleep_ns(1000000);
      atomic_fetch_add(&ticks, 1);
    }
    atomic_store(&wants_vfork, false);
    uint64_t began = monotonic_ns();
    pid_t child = vfork();
    if (child == 0) {
      atomic_store(&has_child, true);
      // Not through libc, whose cancellation state is the parent's.
      syscall(SYS_clock_nanosleep, CLOCK_MONOTONIC, 0, &second, NULL);
      _exit(5);
    }
    if (monotonic_ns() - began < 1000000000u) anomaly("vfork returned early");
    int status;
    if (waitpid(child, &status, 0) != child || status != 5 << 8) anomaly("vfork child: %x", status);
  }
}
static bool vfork_command(const char *command) {
  if (strcmp(command, "vfork")) return false;
  atomic_store(&has_child, false);
  atomic_store(&wants_vfork, true);
  while (!atomic_load(&has_child)) sleep_ns(100000);
  say("vforked");
  return true;
}

static int write_ends[2];
static void *drain_slowly(void *unused) {
  (void)unused;
  char block[4096];
  for (;;) {
    sleep_ns(1000000);
    if (read(write_ends[0], block, sizeof block) <= 0) anomaly("read");
  }
  return NULL;
}
static void run_shortwrite(void) {
  static char bytes[1 << 20];
  if (pipe2(write_ends, O_CLOEXEC)) die("pipe");
  start_quiet_thread(drain_slowly, NULL);
  announce_here();
  for (;;) {
    ssize_t n = write(write_ends[1], bytes, sizeof bytes);
    if (n != sizeof bytes) anomaly("write: %zd of %zu bytes", n, sizeof bytes);
    atomic_fetch_add(&ticks, 1);
  }
}

static const char *kind;

static bool is_kind(const char *name) { return strcmp(kind, name) == 0; }

int run_state(const struct options *options) {
  options_allow(options, (const char *const[]){"kind", NULL});
  kind = option_text(options, "kind", "spin");
  if (is_kind("spin")) announce_state(), spin_checking_registers();
  if (is_kind("call")) announce_state(), call_checking_registers();
  if (is_kind("rseq")) announce_state(), loop_restartable_sequences();
  if (is_kind("stepping")) announce_state(), step_itself();
  if (is_kind("vdso")) run_vdso();
  if (is_kind("handler")) run_handler(false);
  if (is_kind("altstack")) run_handler(true);
  if (is_kind("blocked")) run_blocked();
  if (strncmp(kind, "trap_", 5) == 0) run_trap(kind + 5);
  if (is_kind("smallstack")) {
    prepare_small_stack(3328);
    start_quiet_thread(watch_canaries, NULL);
    announce_state();
    spin_on_small_stack();
  }
  if (is_kind("deepstack")) run_deep();
  if (is_kind("strict")) fork_target(be_strict), serve_state(NULL);
  if (is_kind("nonroot")) fork_target(be_nobody), serve_state(NULL);
  if (is_kind("stopped")) run_stopped();
  if (is_kind("namespaces")) run_namespaces();
  if (is_kind("nofile")) run_nofile(1024);
  if (is_kind("nofile_hard")) run_nofile(64);
  if (is_kind("forker")) {
    announce_here();
    for (int i = 0; i < 3; i++) start_quiet_thread(fork_again_and_again, NULL);
    for (;;) pause();
  }
  if (is_kind("vforked")) run_vforked();
  if (is_kind("second")) run_second();
  if (is_kind("sharedstack")) run_sharedstack();
  if (is_kind("deepening")) run_deepening();
  if (is_kind("altstacks")) run_altstacks();
  if (is_kind("shortwrite")) run_shortwrite();
  fprintf(stderr, "workload: no kind '%s'\n", kind);
  return 64;
}

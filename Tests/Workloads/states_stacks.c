// The states of mode `state` that are about stacks which others use, or could.
#include "states.h"

#include <asm/prctl.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static int deepen_pipe[2];
static atomic_int deepness;
enum { ABOVE, DEEP, WANTS_RETURN, RETURNED };

/// Rests in frames, return addresses in them, over a megabyte of stack.
__attribute__((noinline)) static uint64_t deepen(unsigned frames) {
  volatile uint64_t frame[32];
  for (size_t i = 0; i < 32; i++) frame[i] = frames ^ i;
  if (frames == 0) {
    atomic_store(&deepness, DEEP);
    while (atomic_load(&deepness) == DEEP) sleep_ns(100000);
  } else if (deepen(frames - 1) != frames - 1) {
    anomaly("a frame of the stack changed");
  }
  for (size_t i = 0; i < 32; i++)
    if (frame[i] != (frames ^ i)) anomaly("the stack changed");
  return frames;
}

static bool deepen_command(const char *command) {
  if (strcmp(command, "deepen") == 0) {
    if (write(deepen_pipe[1], "x", 1) != 1) die("write");
    while (atomic_load(&deepness) != DEEP) sleep_ns(100000);
    say("deep");
  } else if (strcmp(command, "return") == 0) {
    atomic_store(&deepness, WANTS_RETURN);
    while (atomic_load(&deepness) != RETURNED) sleep_ns(100000);
    say("returned");
  } else {
    return false;
  }
  return true;
}

void run_deepening(void) {
  if (pipe2(deepen_pipe, O_CLOEXEC)) die("pipe");
  // Older than the one that answers, so that it is asked first.
  start_quiet_thread(wait_in_epoll, NULL);
  sleep_ns(20000000);
  remember_surroundings();
  start_quiet_thread(serve_state, deepen_command);
  say("ready pid=%d", getpid());
  pid_t child = vfork();
  if (child == 0) {
    char byte;
    // Not through libc, whose cancellation state is the parent's.
    syscall(SYS_read, deepen_pipe[0], &byte, 1);
    _exit(0);
  }
  int status;
  if (waitpid(child, &status, 0) != child || status) anomaly("vfork child: %x", status);
  deepen((1 << 20) / sizeof(uint64_t[32]));
  atomic_store(&deepness, RETURNED);
  for (;;) {
    sleep_ns(1000000);
    atomic_fetch_add(&ticks, 1);
  }
}

static void *call_on_own_stack(void *unused) {
  (void)unused;
  call_checking_registers();
}

void run_second(void) {
  announce_state();
  pthread_t thread;
  if (pthread_create(&thread, NULL, call_on_own_stack, NULL)) die("pthread_create");
  spin_checking_registers();
}

enum { NEIGHBOUR = 64 << 10, ROUTINE = 3 << 10, STORAGE = 4 << 10, STORAGE_AT = 128 << 10 };

static void *watch_neighbour(void *argument) {
  const volatile unsigned char *bytes = argument;
  for (;;) {
    for (size_t i = 0; i < NEIGHBOUR; i += 8)
      if (bytes[i] != 0xc5) anomaly("something below the stack changed");
  }
  return NULL;
}

void run_sharedstack(void) {
  announce_state();
  char *region = map_private(2 * STORAGE_AT);
  memset(region, 0xc5, NEIGHBOUR);
  pthread_t thread;
  if (pthread_create(&thread, NULL, watch_neighbour, region)) die("pthread_create");
  warm_comparison();
  char *old = __builtin_thread_pointer(), *new = region + STORAGE_AT;
  memcpy(new - STORAGE, old - STORAGE, 2 * STORAGE);
  // Where the C library keeps the block's own address: at its begin, and as pthread_self.
  uintptr_t address = (uintptr_t)new;
  memcpy(new, &address, sizeof address);
  memcpy(new + 16, &address, sizeof address);
  if (syscall(SYS_arch_prctl, ARCH_SET_FS, new)) die("arch_prctl");
  spin_on_stack((uintptr_t)region + NEIGHBOUR + ROUTINE);
}

static void *spin_on_alternate_stack(void *memory) {
  stack_t stack = {.ss_sp = memory, .ss_size = 65536};
  sigaltstack(&stack, NULL);
  raise(SIGUSR2);
  return NULL;
}

void run_altstacks(void) {
  static char memory[65536];
  int ends[2];
  if (pipe2(ends, O_CLOEXEC | O_NONBLOCK)) die("pipe");
  while (write(ends[1], "x", 1) == 1) continue;
  fcntl(ends[1], F_SETFL, 0);
  struct sigaction action = {.sa_sigaction = spin_in_handler, .sa_flags = SA_SIGINFO | SA_ONSTACK};
  sigaction(SIGUSR2, &action, NULL);
  memset(alternate_memory, 0x5a, sizeof alternate_memory);
  announce_state();
  pthread_t thread;
  if (pthread_create(&thread, NULL, spin_on_alternate_stack, memory)) die("pthread_create");
  ssize_t n = write(ends[1], "x", 1);
  anomaly("write: %zd, errno %d", n, errno);
  for (;;) pause();
}

#define _GNU_SOURCE
#include "clinux_process.h"

#include <errno.h>
#include <linux/capability.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

int clinux_gettid(void) { return (int)syscall(SYS_gettid); }

void clinux_set_thread_name(const char *name) { prctl(PR_SET_NAME, name); }

void clinux_init_rwlock(pthread_rwlock_t *lock) {
  pthread_rwlockattr_t attributes;
  pthread_rwlockattr_init(&attributes);
  pthread_rwlockattr_setkind_np(&attributes, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
  pthread_rwlock_init(lock, &attributes);
  pthread_rwlockattr_destroy(&attributes);
}

static int checked(long result) { return result < 0 ? -errno : (int)result; }

int clinux_pidfd_open(int pid, unsigned flags) {
  return checked(syscall(SYS_pidfd_open, pid, flags));
}
int clinux_pidfd_getfd(int pidfd, int fd) { return checked(syscall(SYS_pidfd_getfd, pidfd, fd, 0)); }
int clinux_pidfd_send_signal(int pidfd, int signal) {
  return checked(syscall(SYS_pidfd_send_signal, pidfd, signal, NULL, 0));
}
int clinux_tgkill(int pid, int tid, int signal) {
  return checked(syscall(SYS_tgkill, pid, tid, signal));
}
int clinux_pidfd_exited(int pidfd) {
  struct pollfd waiting = {.fd = pidfd, .events = POLLIN};
  int ready = poll(&waiting, 1, 0);
  return ready < 0 ? -errno : ready;
}

int clinux_compare_memory(int pid, int other_pid) {
  int compare_vm = 1;  // KCMP_VM
  return checked(syscall(SYS_kcmp, pid, other_pid, compare_vm, 0, 0));
}

int clinux_compare_file(int pid, int other_pid, int fd, int other_fd) {
  int compare_file = 0;  // KCMP_FILE
  return checked(syscall(SYS_kcmp, pid, other_pid, compare_file, fd, other_fd));
}

int clinux_descriptor_limit(int pid, const uint64_t set[2], uint64_t old[2]) {
  struct rlimit wanted = {0}, before;
  if (set) wanted = (struct rlimit){set[0], set[1]};
  if (prlimit(pid, RLIMIT_NOFILE, set ? &wanted : NULL, &before) < 0) return -errno;
  old[0] = before.rlim_cur;
  old[1] = before.rlim_max;
  return 0;
}

int clinux_prefer_this_thread(void) {
  return checked(setpriority(PRIO_PROCESS, (id_t)clinux_gettid(), -20));
}

int clinux_nice(void) { return getpriority(PRIO_PROCESS, (id_t)clinux_gettid()); }

int clinux_set_nice(int value) {
  return checked(setpriority(PRIO_PROCESS, (id_t)clinux_gettid(), value));
}

int clinux_set_idle(int is_idle) {
  struct sched_param none = {0};
  return checked(sched_setscheduler(0, is_idle ? SCHED_IDLE : SCHED_OTHER, &none));
}

int clinux_set_io_priority(int class, int level) {
  int this_thread = 1;  // IOPRIO_WHO_PROCESS, and 0 for who
  return checked(syscall(SYS_ioprio_set, this_thread, 0, class << 13 | level));
}

int clinux_keep_capabilities(uint64_t kept) {
  struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
  struct __user_cap_data_struct sets[2];
  if (syscall(SYS_capget, &header, sets) < 0) return -errno;
  for (int half = 0; half < 2; half++) {
    uint32_t mask = (uint32_t)(kept >> (32 * half));
    sets[half].effective &= mask;
    sets[half].permitted &= mask;
    // The inheritable set stays: the kernel allows that, and children are not ours to restrict.
  }
  return checked(syscall(SYS_capset, &header, sets));
}

int clinux_collapse(int pidfd, uint64_t start, uint64_t byte_count) {
  struct iovec range = {(void *)start, byte_count};
  int collapse = 25;  // MADV_COLLAPSE
  return syscall(SYS_process_madvise, pidfd, &range, 1, collapse, 0) < 0 ? -errno : 0;
}

static uint64_t clock_ns(clockid_t clock) {
  struct timespec now;
  clock_gettime(clock, &now);
  return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}
uint64_t clinux_monotonic_ns(void) { return clock_ns(CLOCK_MONOTONIC); }
uint64_t clinux_boottime_ns(void) { return clock_ns(CLOCK_BOOTTIME); }
uint64_t clinux_thread_waits(void) {
  struct rusage used = {0};
  getrusage(RUSAGE_THREAD, &used);
  return (uint64_t)used.ru_nvcsw;
}
uint64_t clinux_thread_cpu_ns(void) { return clock_ns(CLOCK_THREAD_CPUTIME_ID); }

void clinux_pause_ns(uint64_t nanoseconds) {
  struct timespec pause = {(time_t)(nanoseconds / 1000000000u), (long)(nanoseconds % 1000000000u)};
  nanosleep(&pause, NULL);
}

int clinux_map_anonymous(size_t byte_count, void **out) {
  void *mapped =
      mmap(NULL, byte_count, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (mapped == MAP_FAILED) return -errno;
  *out = mapped;
  return 0;
}
int clinux_unmap(void *address, size_t byte_count) { return checked(munmap(address, byte_count)); }
int clinux_move_mapping(void *from, size_t byte_count, void *to) {
  void *moved = mremap(from, byte_count, byte_count, MREMAP_MAYMOVE | MREMAP_FIXED, to);
  return moved == MAP_FAILED ? -errno : 0;
}
int clinux_reserve_at(void *address, size_t byte_count) {
  int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE;
  return mmap(address, byte_count, PROT_NONE, flags, -1, 0) == MAP_FAILED ? -errno : 0;
}
int clinux_mprotect(void *address, size_t byte_count, int protection) {
  return checked(mprotect(address, byte_count, protection));
}
int clinux_madvise(void *address, size_t byte_count, int advice) {
  return checked(madvise(address, byte_count, advice));
}

long clinux_find(const void *bytes, size_t count, const void *wanted, size_t wanted_count) {
  const char *hit = memmem(bytes, count, wanted, wanted_count);
  return hit ? hit - (const char *)bytes : -1;
}

int clinux_fork_stopped(void) {
  // Only async-signal-safe calls in the child: other threads of this process may hold locks.
  pid_t child = fork();
  if (child != 0) return checked(child);
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  ptrace(PTRACE_TRACEME, 0, NULL, NULL);
  raise(SIGSTOP);
  _exit(0);
}

int clinux_allowed_processors(void) {
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set) < 0) return -errno;
  return CPU_COUNT(&set);
}

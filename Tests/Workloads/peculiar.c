// Modes that something else already holds, or that a tracer must not disturb: `uffd`, `seccomp`,
// `traced` and `elf32`.
#include "workload.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <linux/userfaultfd.h>
#include <pthread.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

int run_uffd(const struct options *options) {
  options_allow(options, (const char *const[]){"pages", NULL});
  uint64_t pages = option_number(options, "pages", 64);
  char *arena = map_private(pages * PAGE);
  // Touched first: nobody answers this descriptor's faults.
  fill(arena, pages * PAGE, 13);
  int uffd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | UFFD_USER_MODE_ONLY);
  if (uffd < 0) die("userfaultfd");
  struct uffdio_api api = {.api = UFFD_API, .features = UFFD_FEATURE_PAGEFAULT_FLAG_WP};
  if (ioctl(uffd, UFFDIO_API, &api)) die("UFFDIO_API");
  struct uffdio_register range = {
      .range = {(uintptr_t)arena, pages * PAGE},
      .mode = UFFDIO_REGISTER_MODE_MISSING | UFFDIO_REGISTER_MODE_WP,
  };
  if (ioctl(uffd, UFFDIO_REGISTER, &range)) die("UFFDIO_REGISTER");
  say("ready pid=%d arena=0x%lx pages=%lu uffd=%d", getpid(), (uintptr_t)arena, pages, uffd);
  wait_for_stdin_to_close();
  return 0;
}

static volatile uint64_t counter;

static void *count_up(void *unused) {
  (void)unused;
  for (;;) {
    counter++;
    sleep_ns(100000);
  }
  return NULL;
}

int run_seccomp(const struct options *options) {
  options_allow(options, (const char *const[]){NULL});
  struct sock_filter program[] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_userfaultfd, 0, 1),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
  };
  struct sock_fprog filter = {sizeof program / sizeof *program, program};
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)) die("PR_SET_NO_NEW_PRIVS");
  if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter)) die("PR_SET_SECCOMP");
  // After the filter, which threads inherit.
  pthread_t thread;
  if (pthread_create(&thread, NULL, count_up, NULL)) die("pthread_create");
  say("ready pid=%d counter=0x%lx", getpid(), (uintptr_t)&counter);
  char command[128];
  while (next_command(command, sizeof command)) {
    if (strcmp(command, "report") == 0)
      say("count=%lu", (unsigned long)counter);
    else
      say("unknown");
  }
  return 0;
}

int run_traced(const struct options *options) {
  options_allow(options, (const char *const[]){NULL});
  pid_t tracer = getpid();
  pid_t child = fork();
  if (child < 0) die("fork");
  if (child == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    while (getppid() == tracer) pause();
    _exit(0);
  }
  // Seized and never stopped: it runs, and only TracerPid shows that it is taken.
  if (ptrace(PTRACE_SEIZE, child, NULL, (void *)(uintptr_t)PTRACE_O_EXITKILL)) die("PTRACE_SEIZE");
  say("ready pid=%d tracer=%d", child, tracer);
  wait_for_stdin_to_close();
  return 0;
}

// An ELF32 header, one program header, and:
//   prctl(PR_SET_PDEATHSIG, SIGKILL); for (;;) pause();
static const unsigned char elf32[] = {
    0x7f, 'E', 'L', 'F', 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0,  // 32-bit, little endian
    2, 0, 3, 0, 1, 0, 0, 0,                                   // ET_EXEC, EM_386
    0x54, 0x80, 0x04, 0x08,                                   // entry: behind the headers
    0x34, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,                    // program headers at 0x34
    0x34, 0, 0x20, 0, 1, 0, 0x28, 0, 0, 0, 0, 0,              // sizes and counts
    1, 0, 0, 0, 0, 0, 0, 0,                                   // PT_LOAD from offset 0
    0x00, 0x80, 0x04, 0x08, 0x00, 0x80, 0x04, 0x08,           // to 0x08048000
    0x71, 0, 0, 0, 0x71, 0, 0, 0,                             // bytes of the file, and of memory
    5, 0, 0, 0, 0x00, 0x10, 0, 0,                             // r-x, page aligned
    0xb8, 172, 0, 0, 0,                                       // mov eax, prctl
    0xbb, 1, 0, 0, 0,                                         // mov ebx, PR_SET_PDEATHSIG
    0xb9, 9, 0, 0, 0,                                         // mov ecx, SIGKILL
    0xcd, 0x80,                                               // int 0x80
    0xb8, 29, 0, 0, 0,                                        // again: mov eax, pause
    0xcd, 0x80,                                               // int 0x80
    0xeb, 0xf7,                                               // jmp again
    0x90, 0x90, 0x90,
};
_Static_assert(sizeof elf32 == 0x71, "the program header says how long the file is");

int run_elf32(const struct options *options) {
  options_allow(options, (const char *const[]){"path", NULL});
  const char *path = option_text(options, "path", NULL);
  if (!path) {
    fprintf(stderr, "workload: elf32 needs path=PATH\n");
    return 64;
  }
  int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0755);
  if (fd < 0) die("%s", path);
  if (write(fd, elf32, sizeof elf32) != (ssize_t)sizeof elf32) die("%s", path);
  // Closed before the ready line: a file open for writing cannot be run.
  if (fchmod(fd, 0755) || close(fd)) die("%s", path);
  say("ready pid=%d path=%s", getpid(), path);
  wait_for_stdin_to_close();
  return 0;
}

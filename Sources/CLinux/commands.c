#define _GNU_SOURCE
#include "clinux_commands.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static int is_replaced(const char *entry, const char *const *extra, size_t extra_count) {
  const char *equals = strchr(entry, '=');
  if (!equals) return 0;
  size_t length = (size_t)(equals - entry) + 1;
  for (size_t i = 0; i < extra_count; i++)
    if (strncmp(entry, extra[i], length) == 0) return 1;
  return 0;
}

int clinux_spawn_shell(const char *command, const char *const *extra, size_t extra_count,
                       int *gate) {
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) < 0) return -errno;
  size_t inherited = 0;
  while (environ[inherited]) inherited++;
  char *environment[inherited + extra_count + 1];
  size_t count = 0;
  for (size_t i = 0; i < inherited; i++)
    if (!is_replaced(environ[i], extra, extra_count)) environment[count++] = environ[i];
  for (size_t i = 0; i < extra_count; i++) environment[count++] = (char *)extra[i];
  environment[count] = NULL;

  posix_spawn_file_actions_t files;
  posix_spawnattr_t attributes;
  sigset_t none, all;
  sigemptyset(&none);
  sigfillset(&all);
  posix_spawn_file_actions_init(&files);
  posix_spawnattr_init(&attributes);
  int result = posix_spawn_file_actions_adddup2(&files, ends[0], 0);
  if (!result) result = posix_spawn_file_actions_adddup2(&files, 2, 1);
  if (!result) result = posix_spawn_file_actions_addclosefrom_np(&files, 3);
  if (!result) result = posix_spawnattr_setsigmask(&attributes, &none);
  if (!result) result = posix_spawnattr_setsigdefault(&attributes, &all);
  if (!result) result = posix_spawnattr_setpgroup(&attributes, 0);
  if (!result)
    result = posix_spawnattr_setflags(
        &attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETPGROUP);
  pid_t child = 0;
  char *const arguments[] = {
      "sh", "-c", "read -r go && exec /bin/sh -c \"$0\" </dev/null", (char *)command, NULL};
  if (!result)
    result = posix_spawn(&child, "/bin/sh", &files, &attributes, arguments, environment);
  posix_spawn_file_actions_destroy(&files);
  posix_spawnattr_destroy(&attributes);
  close(ends[0]);
  if (result) {
    close(ends[1]);
    return -result;
  }
  *gate = ends[1];
  return child;
}

int clinux_wait_child(int pid, int milliseconds, int *status) {
  int pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
  if (pidfd >= 0) {
    struct pollfd waiting = {.fd = pidfd, .events = POLLIN};
    poll(&waiting, 1, milliseconds);
    close(pidfd);
  }
  pid_t ended = waitpid(pid, status, WNOHANG);
  return ended < 0 ? -errno : ended == pid;
}

int clinux_signal_group(int group, int signal) { return kill(-group, signal) < 0 ? -errno : 0; }

// Runs in the forked child: other threads of the parent may have held locks, so only system calls.
static void guard(int pidfd, int orders) {
  setsid();
  prctl(PR_SET_NAME, "memdump-guard");
  // Above all the userfaultfd must not stay open here; and nobody waits for our standard streams.
  if (dup2(pidfd, 0) < 0 || dup2(orders, 1) < 0 || syscall(SYS_close_range, 2, ~0u, 0) < 0) _exit(1);
  if (chdir("/") < 0) _exit(1);
  struct clinux_guardian_order last = {0, 0}, order;
  while (1) {
    ssize_t count = read(1, &order, sizeof order);
    if (count == sizeof order) {
      last = order;
    } else if (count >= 0 || errno != EINTR) {
      break;
    }
  }
  if (last.group > 0) kill(-last.group, SIGKILL);
  if (last.continues) syscall(SYS_pidfd_send_signal, 0, SIGCONT, NULL, 0);
  _exit(0);
}

int clinux_fork_guardian(int pidfd, int *control) {
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) < 0) return -errno;
  // Nothing but SIGKILL ends it: not the terminal, and no signal to our process group.
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  pid_t child = fork();
  int failure = errno;
  if (child == 0) {
    // Once more: its parent is init, so that nobody has to wait for it.
    pid_t guardian = fork();
    if (guardian) _exit(guardian < 0);
    // The pipe's write end is the parent's alone: its end is what the guardian waits for.
    int own = fcntl(pidfd, F_DUPFD, 3), from = fcntl(ends[0], F_DUPFD, 3);
    guard(own, from);
  }
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  close(ends[0]);
  int status = 0;
  if (child < 0 || waitpid(child, &status, 0) < 0 || status != 0) {
    close(ends[1]);
    return child < 0 ? -failure : -EAGAIN;
  }
  *control = ends[1];
  return 0;
}

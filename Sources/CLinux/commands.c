#define _GNU_SOURCE
#include "clinux_commands.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
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

/// A message of a guardian's socket: an order, and with it perhaps a process.
union descriptor_buffer {
  char bytes[CMSG_SPACE(sizeof(int))];
  struct cmsghdr aligned;
};

// Runs in the forked child: other threads of the parent may have held locks, so only system calls.
static void guard(int orders) {
  setsid();
  prctl(PR_SET_NAME, "memdump-guard");
  // Above all the userfaultfd must not stay open here; and nobody waits for our standard streams.
  if (dup2(orders, 0) < 0 || syscall(SYS_close_range, 1, ~0u, 0) < 0) _exit(1);
  if (chdir("/") < 0) _exit(1);
  struct rlimit limit;
  if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
  }
  struct clinux_guardian_order last = {0}, order;
  // The guarded processes, and what was added to them, are descriptors 1 to `guarded`: the lowest
  // free number is the next one.
  int guarded = 0;
  while (1) {
    union descriptor_buffer buffer;
    struct iovec place = {&order, sizeof order};
    struct msghdr message = {.msg_iov = &place, .msg_iovlen = 1, .msg_control = buffer.bytes,
                             .msg_controllen = sizeof buffer.bytes};
    ssize_t count = recvmsg(0, &message, MSG_CMSG_CLOEXEC);
    if (count < 0 && errno == EINTR) continue;
    if (count != sizeof order) break;
    last = order;
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    if (header || message.msg_flags & MSG_CTRUNC) {
      int32_t answer = header ? 0 : -EMFILE;
      if (header) guarded++;
      send(0, &answer, sizeof answer, MSG_NOSIGNAL);
    } else if (!last.signal) {
      if (guarded) syscall(SYS_close_range, 1, ~0u, 0);
      guarded = 0;
    }
  }
  struct rlimit given = {last.limit[0], last.limit[1]};
  if (last.limited > 0) prlimit(last.limited, RLIMIT_NOFILE, &given, NULL);
  if (last.group > 0) kill(-last.group, SIGKILL);
  // Children first: a parent that runs again should not find them stopped.
  for (int fd = guarded; last.signal && fd > 0; fd--)
    syscall(SYS_pidfd_send_signal, fd, last.signal, NULL, 0);
  _exit(0);
}

int clinux_fork_guardian(int *control) {
  int ends[2];
  if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) < 0) return -errno;
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
    guard(ends[0]);
  }
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  // The other end is the guardian's alone: the end of ours is what it waits for.
  close(ends[0]);
  int status = 0;
  if (child < 0 || waitpid(child, &status, 0) < 0 || status != 0) {
    close(ends[1]);
    return child < 0 ? -failure : -EAGAIN;
  }
  *control = ends[1];
  return 0;
}

int clinux_order_guardian(int control, const struct clinux_guardian_order *order) {
  return send(control, order, sizeof *order, MSG_NOSIGNAL) < 0 ? -errno : 0;
}

int clinux_add_guarded(int control, int descriptor, const struct clinux_guardian_order *order) {
  union descriptor_buffer buffer;
  memset(&buffer, 0, sizeof buffer);
  struct iovec place = {(void *)order, sizeof *order};
  struct msghdr message = {.msg_iov = &place, .msg_iovlen = 1, .msg_control = buffer.bytes,
                           .msg_controllen = sizeof buffer.bytes};
  struct cmsghdr *header = CMSG_FIRSTHDR(&message);
  header->cmsg_level = SOL_SOCKET;
  header->cmsg_type = SCM_RIGHTS;
  header->cmsg_len = CMSG_LEN(sizeof(int));
  memcpy(CMSG_DATA(header), &descriptor, sizeof descriptor);
  if (sendmsg(control, &message, MSG_NOSIGNAL) < 0) return -errno;
  int32_t answer;
  ssize_t count;
  do {
    count = recv(control, &answer, sizeof answer, 0);
  } while (count < 0 && errno == EINTR);
  if (count < 0) return -errno;
  return count == sizeof answer ? answer : -EPIPE;
}

#define _GNU_SOURCE
#include "clinux_sockets.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

int clinux_receive_descriptor(int socket) {
  char byte;
  struct iovec part = {.iov_base = &byte, .iov_len = 1};
  union {
    char bytes[CMSG_SPACE(sizeof(int))];
    struct cmsghdr aligned;
  } control;
  struct msghdr message = {.msg_iov = &part,
                           .msg_iovlen = 1,
                           .msg_control = control.bytes,
                           .msg_controllen = sizeof control.bytes};
  ssize_t count = recvmsg(socket, &message, MSG_CMSG_CLOEXEC);
  if (count < 0) return -errno;
  if (count == 0) return -EPIPE;
  struct cmsghdr *header = CMSG_FIRSTHDR(&message);
  if (!header || header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS)
    return -EBADMSG;
  int number;
  memcpy(&number, CMSG_DATA(header), sizeof number);
  return number;
}

long clinux_receive_all(int socket, void *buffer, size_t count) {
  ssize_t got = recv(socket, buffer, count, MSG_WAITALL);
  return got < 0 ? -errno : got;
}

long clinux_send(int socket, const void *buffer, size_t count) {
  ssize_t sent = send(socket, buffer, count, MSG_NOSIGNAL);
  return sent < 0 ? -errno : sent;
}

long clinux_splice(int from, int to, size_t count) {
  ssize_t moved = splice(from, NULL, to, NULL, count, SPLICE_F_MOVE);
  return moved < 0 ? -errno : moved;
}

int clinux_ended_socket(void) {
  int ends[2];
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) < 0) return -errno;
  close(ends[1]);
  return ends[0];
}

int clinux_pipe(int out[2]) { return pipe2(out, O_CLOEXEC) < 0 ? -errno : 0; }

int clinux_spawn(const char *program, char *const arguments[], int directory, int input, int discards,
                 int own_group) {
  posix_spawn_file_actions_t actions;
  posix_spawnattr_t attributes;
  int error = posix_spawn_file_actions_init(&actions);
  if (error) return -error;
  error = posix_spawnattr_init(&attributes);
  if (error) {
    posix_spawn_file_actions_destroy(&actions);
    return -error;
  }
  sigset_t none, all;
  sigemptyset(&none);
  sigfillset(&all);
  posix_spawnattr_setsigmask(&attributes, &none);
  posix_spawnattr_setsigdefault(&attributes, &all);
  posix_spawnattr_setpgroup(&attributes, 0);
  posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF |
                                            (own_group ? POSIX_SPAWN_SETPGROUP : 0));
  if (input >= 0) {
    error = posix_spawn_file_actions_adddup2(&actions, input, 0);
  } else {
    error = posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
  }
  if (!error && discards)
    error = posix_spawn_file_actions_addopen(&actions, 1, "/dev/null", O_WRONLY, 0);
  if (!error && discards) error = posix_spawn_file_actions_adddup2(&actions, 1, 2);
  if (!error && directory >= 0)
    error = posix_spawn_file_actions_addfchdir_np(&actions, directory);
  pid_t pid = 0;
  if (!error) error = posix_spawnp(&pid, program, &actions, &attributes, arguments, environ);
  posix_spawnattr_destroy(&attributes);
  posix_spawn_file_actions_destroy(&actions);
  return error ? -error : pid;
}

int clinux_wait_end(int pid) {
  int status;
  if (waitpid(pid, &status, 0) < 0) return -errno;
  return WIFSIGNALED(status) ? 256 + WTERMSIG(status) : WEXITSTATUS(status);
}

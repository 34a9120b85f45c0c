#define _GNU_SOURCE
#include "clinux_channel.h"

#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <unistd.h>

#define RESULT(call)              \
  do {                            \
    __auto_type result_ = (call); \
    return result_ < 0 ? -errno : result_; \
  } while (0)

int clinux_channel_kind(int fd) {
  struct stat status;
  if (fstat(fd, &status) < 0) return -errno;
  if (S_ISSOCK(status.st_mode)) return CLINUX_CHANNEL_SOCKET;
  if (S_ISFIFO(status.st_mode)) return CLINUX_CHANNEL_PIPE;
  return CLINUX_CHANNEL_FILE;
}

long clinux_try_read(int fd, int kind, void *buffer, size_t count) {
  if (kind == CLINUX_CHANNEL_SOCKET) RESULT(recv(fd, buffer, count, MSG_DONTWAIT));
  if (kind == CLINUX_CHANNEL_PIPE) {
    struct iovec vector = {buffer, count};
    ssize_t moved = preadv2(fd, &vector, 1, -1, RWF_NOWAIT);
    if (moved >= 0 || errno != EOPNOTSUPP) return moved < 0 ? -errno : moved;
  }
  RESULT(read(fd, buffer, count));
}

long clinux_try_write(int fd, int kind, const void *buffer, size_t count) {
  if (kind == CLINUX_CHANNEL_SOCKET) RESULT(send(fd, buffer, count, MSG_DONTWAIT | MSG_NOSIGNAL));
  if (kind == CLINUX_CHANNEL_PIPE) {
    struct iovec vector = {(void *)buffer, count};
    ssize_t moved = pwritev2(fd, &vector, 1, -1, RWF_NOWAIT);
    if (moved >= 0 || errno != EOPNOTSUPP) return moved < 0 ? -errno : moved;
  }
  RESULT(write(fd, buffer, count));
}

int clinux_channel_wait(int input, int output, int milliseconds) {
  struct pollfd ends[2] = {{.fd = input, .events = POLLIN}, {.fd = output, .events = POLLOUT}};
  int count = poll(ends, 2, milliseconds);
  if (count < 0) return errno == EINTR ? 0 : -errno;
  return (ends[0].revents != 0 ? 1 : 0) + (ends[1].revents != 0 ? 2 : 0);
}

void clinux_limit_silence(int fd, unsigned milliseconds) {
  setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &milliseconds, sizeof milliseconds);
}

void clinux_hang_up(int fd) { shutdown(fd, SHUT_RDWR); }

void clinux_close_gently(int fd, int milliseconds) {
  char rest[4096];
  shutdown(fd, SHUT_WR);
  for (; milliseconds > 0; milliseconds -= 10) {
    struct pollfd end = {.fd = fd, .events = POLLIN};
    if (poll(&end, 1, 10) <= 0) continue;
    if (recv(fd, rest, sizeof rest, MSG_DONTWAIT) <= 0) break;
  }
  close(fd);
}

int clinux_duplicate(int fd) { RESULT(fcntl(fd, F_DUPFD_CLOEXEC, 3)); }

static int unix_socket(const char *path, struct sockaddr_un *address) {
  memset(address, 0, sizeof *address);
  address->sun_family = AF_UNIX;
  if (strlen(path) >= sizeof address->sun_path) return -ENAMETOOLONG;
  strcpy(address->sun_path, path);
  RESULT(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
}

static int close_after(int fd, int error) {
  close(fd);
  return -error;
}

int clinux_connect_unix(const char *path) {
  struct sockaddr_un address;
  int fd = unix_socket(path, &address);
  if (fd < 0) return fd;
  if (connect(fd, (struct sockaddr *)&address, sizeof address) < 0) return close_after(fd, errno);
  return fd;
}

int clinux_listen_unix(const char *path) {
  struct sockaddr_un address;
  int fd = unix_socket(path, &address);
  if (fd < 0) return fd;
  // The mode of the socket's inode is that of the name it gets.
  if (fchmod(fd, 0600) < 0) return close_after(fd, errno);
  if (bind(fd, (struct sockaddr *)&address, sizeof address) < 0) return close_after(fd, errno);
  if (listen(fd, 1) < 0) return close_after(fd, errno);
  return fd;
}

int clinux_is_stale_socket(const char *path) {
  struct stat status;
  if (lstat(path, &status) < 0 || !S_ISSOCK(status.st_mode) || status.st_uid != geteuid()) return 0;
  int fd = clinux_connect_unix(path);
  if (fd >= 0) close(fd);
  return fd == -ECONNREFUSED;
}

/// Small frames go at once. Harmless on a socket that is none of TCP's.
static void prepare_tcp(int fd) {
  int on = 1;
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
}

static int connect_within(const struct addrinfo *place, int milliseconds) {
  int fd = socket(place->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0) return -errno;
  if (connect(fd, place->ai_addr, place->ai_addrlen) < 0) {
    if (errno != EINPROGRESS) return close_after(fd, errno);
    struct pollfd end = {.fd = fd, .events = POLLOUT};
    if (poll(&end, 1, milliseconds) <= 0) return close_after(fd, ETIMEDOUT);
    int error = 0;
    socklen_t length = sizeof error;
    getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &length);
    if (error != 0) return close_after(fd, error);
  }
  prepare_tcp(fd);
  return fd;
}

int clinux_connect_tcp(const char *host, const char *port, int milliseconds, int *gai) {
  struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV}, *found;
  *gai = getaddrinfo(host, port, &hints, &found);
  if (*gai != 0) return -EHOSTUNREACH;
  int fd = -EHOSTUNREACH;
  for (struct addrinfo *place = found; place && fd < 0; place = place->ai_next) {
    fd = connect_within(place, milliseconds);
  }
  freeaddrinfo(found);
  return fd;
}

static int listen_at(const struct addrinfo *place) {
  int fd = socket(place->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return -errno;
  int on = 1;
  setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  if (bind(fd, place->ai_addr, place->ai_addrlen) < 0) return close_after(fd, errno);
  if (listen(fd, 1) < 0) return close_after(fd, errno);
  return fd;
}

int clinux_listen_tcp(const char *host, const char *port, int *gai) {
  struct addrinfo hints = {
      .ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV | AI_PASSIVE}, *found;
  *gai = getaddrinfo(host, port, &hints, &found);
  if (*gai != 0) return -EADDRNOTAVAIL;
  int fd = -EADDRNOTAVAIL;
  for (struct addrinfo *place = found; place && fd < 0; place = place->ai_next) {
    fd = listen_at(place);
  }
  freeaddrinfo(found);
  return fd;
}

int clinux_accept(int fd, int milliseconds) {
  struct pollfd end = {.fd = fd, .events = POLLIN};
  int ready = poll(&end, 1, milliseconds);
  if (ready < 0) return errno == EINTR ? -EAGAIN : -errno;
  if (ready == 0) return -EAGAIN;
  int connection = accept4(fd, NULL, NULL, SOCK_CLOEXEC);
  if (connection < 0) return errno == ECONNABORTED || errno == EINTR ? -EAGAIN : -errno;
  prepare_tcp(connection);
  return connection;
}

int clinux_local_port(int fd) {
  struct sockaddr_storage address;
  socklen_t length = sizeof address;
  if (getsockname(fd, (struct sockaddr *)&address, &length) < 0) return -errno;
  if (address.ss_family == AF_INET6) return ntohs(((struct sockaddr_in6 *)&address)->sin6_port);
  return ntohs(((struct sockaddr_in *)&address)->sin_port);
}

const char *clinux_resolver_error(int gai) { return gai_strerror(gai); }

#ifndef CLINUX_CHANNEL_H
#define CLINUX_CHANNEL_H

#include <stddef.h>

/// What a descriptor leads to, for transfers that never wait.
enum clinux_channel_kind {
  /// A file or a terminal: transfers may wait a little.
  CLINUX_CHANNEL_FILE = 0,
  CLINUX_CHANNEL_SOCKET = 1,
  CLINUX_CHANNEL_PIPE = 2,
};

/// One of `clinux_channel_kind`.
int clinux_channel_kind(int fd);
/// Transfers without waiting, whatever O_NONBLOCK says: that flag belongs to the open file, which
/// others may share. -EAGAIN if nothing can be moved now; never raises SIGPIPE on a socket.
long clinux_try_read(int fd, int kind, void *buffer, size_t count);
long clinux_try_write(int fd, int kind, const void *buffer, size_t count);
/// Waits until `input` has bytes or has ended (1) or `output` has room or is broken (2): the sum of
/// both, or 0 after the time. Either may be negative.
int clinux_channel_wait(int input, int output, int milliseconds);

/// TCP_USER_TIMEOUT; nothing happens to what is no TCP socket.
void clinux_limit_silence(int fd, unsigned milliseconds);
/// shutdown(2) of both directions; nothing happens to what is no socket.
void clinux_hang_up(int fd);
/// Closes a socket so that what was sent last arrives: after the other side has closed it, or after
/// the time.
void clinux_close_gently(int fd, int milliseconds);

/// A duplicate, closed on exec.
int clinux_duplicate(int fd);
int clinux_connect_unix(const char *path);
int clinux_listen_unix(const char *path);
/// 1 if `path` is a socket of this user's at which nobody listens.
int clinux_is_stale_socket(const char *path);
/// `gai` gets what getaddrinfo says, 0 if it found something.
int clinux_connect_tcp(const char *host, const char *port, int milliseconds, int *gai);
int clinux_listen_tcp(const char *host, const char *port, int *gai);
/// The next connection; -EAGAIN after the time.
int clinux_accept(int fd, int milliseconds);
/// The port that a TCP socket is bound to.
int clinux_local_port(int fd);
/// What getaddrinfo's code means.
const char *clinux_resolver_error(int gai);

#endif

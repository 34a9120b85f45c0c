#ifndef CLINUX_SOCKETS_H
#define CLINUX_SOCKETS_H

#include <stddef.h>

/// A listening unix(7) stream socket at `path`.
int clinux_listen_local(const char *path);
/// A listening TCP socket; `host` may be NULL for any address, `port` "0" for any port.
int clinux_listen_tcp(const char *host, const char *port);
/// The port that a TCP socket is bound to.
int clinux_local_port(int socket);
int clinux_accept(int socket);
/// One byte with one descriptor (SCM_RIGHTS). -EPIPE at the end, -EBADMSG without a descriptor.
int clinux_receive_descriptor(int socket);
/// Bytes received, fewer than `count` only at the end.
long clinux_receive_all(int socket, void *buffer, size_t count);
/// send(2) without SIGPIPE; may send fewer bytes.
long clinux_send(int socket, const void *buffer, size_t count);
/// Sends small replies at once (TCP_NODELAY); nothing on other sockets.
void clinux_send_at_once(int socket);
/// Moves bytes out of or into a pipe; 0 at its end.
long clinux_splice(int from, int to, size_t count);
/// A close-on-exec pipe: out[0] to read, out[1] to write.
int clinux_pipe(int out[2]);
/// Starts a program with default signals in the directory behind the descriptor `directory`, or in
/// ours if it is -1. Its standard input is `input` (or /dev/null if -1); its output goes
/// nowhere if `discards`, else to where ours goes. With `own_group` signals of our terminal do not reach it.
int clinux_spawn(const char *program, char *const arguments[], int directory, int input, int discards,
                 int own_group);
/// Waits for a child: its exit status, or 256 + the signal that ended it.
int clinux_wait_end(int pid);

#endif

#ifndef CLINUX_SOCKETS_H
#define CLINUX_SOCKETS_H

#include <stddef.h>

/// One byte with one descriptor (SCM_RIGHTS). -EPIPE at the end, -EBADMSG without a descriptor.
int clinux_receive_descriptor(int socket);
/// Bytes received, fewer than `count` only at the end.
long clinux_receive_all(int socket, void *buffer, size_t count);
/// send(2) without SIGPIPE; may send fewer bytes.
long clinux_send(int socket, const void *buffer, size_t count);
/// Moves bytes out of or into a pipe; 0 at its end.
long clinux_splice(int from, int to, size_t count);
/// A stream socket whose other side has hung up already.
int clinux_ended_socket(void);
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

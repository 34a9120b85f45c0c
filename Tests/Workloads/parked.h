// The calls that mode `parked` waits in.
#ifndef PARKED_H
#define PARKED_H

#include "selfcheck.h"

#include <pthread.h>

/// A thread that does nothing but wait in one call.
struct parked {
  const struct parked_call *call;
  pthread_t thread;
  _Atomic int tid;
  int read_end, write_end;  // what it waits for, and what wakes it
  int object;               // epoll, io_uring, semaphore set, message queue, ...
  int child;                // the process that it waits for
  char path[64];
  unsigned long context;    // aio
  _Atomic unsigned futex;
  atomic_ulong wakes, returns, signals, interrupts;
};

/// A blocking call, and how it ends if nobody disturbs it.
struct parked_call {
  const char *name;
  int timeout_ms;  // after which it ends; 0: only `wake` ends it
  long value;      // what it returns then,
  int error;       // and errno with a value of -1
  void (*prepare)(struct parked *);
  long (*wait)(struct parked *);
  void (*wake)(struct parked *);
};

/// Ends with a nameless element.
extern const struct parked_call parked_calls[];
/// Wakes the calls that only a handled signal ends.
#define WAKE_SIGNAL SIGUSR2
/// Sent while the calls are attacked; its handler counts, and it ends a call with EINTR.
#define COUNTED_SIGNAL SIGUSR1
/// Blocked, and waited for by sigwaitinfo and signalfd.
#define AWAITED_SIGNAL SIGHUP

#endif
